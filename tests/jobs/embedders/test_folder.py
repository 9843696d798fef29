"""A folder of embeddings that exist already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.schema import uid
from jobs.embedders.folder import Folder
from tests.support.embedding_folder import TWO_ROWS, write_folder
from tests.support.rot import flip_in_pages

FAULTS = {
    "rows": "img_emb_1.npy has 3 vectors and metadata_1.parquet 2 rows: they must match",
    "dimensions": "mixes vectors of 4, 5 dimensions",
    "columns": "metadata_1.parquet has columns path; url and caption",
    "no vectors": "metadata_1.parquet has no .*img_emb_1.npy: both halves",
    "no metadata": "img_emb_1.npy has no metadata",
    "torn": "img_emb_1.npy is truncated, 159 of 160 bytes: fetch it again",
    "empty": "img_emb_1.npy is no .npy file",
    "kind": "img_emb_1.npy has int64",
    "junk": "metadata_1.parquet is not a readable parquet file",
    "null": "metadata_1.parquet has 1 rows whose uid is not 32 hexadecimal digits",
    "words": "metadata_1.parquet has 2 rows whose UID is not 32 hexadecimal digits",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_folder_is_refused_with_its_reason(tmp_path: Path, fault: str) -> None:
    vectors = np.ones((2, 4), np.float32)
    other = {"rows": np.ones((3, 4)), "dimensions": np.ones((2, 5)), "kind": np.ones((2, 4), int)}.get(fault, vectors)
    tables = {
        "columns": pa.table({"path": ["a", "b"]}),
        "null": pa.table({"uid": ["0" * 32, None]}),
        "words": pa.table({"UID": ["a", "zz"]}),
    }
    write_folder(tmp_path / "emb", [(TWO_ROWS, vectors), (tables.get(fault, TWO_ROWS), other)])
    array, metadata = tmp_path / "emb/img_emb/img_emb_1.npy", tmp_path / "emb/metadata/metadata_1.parquet"
    if fault.startswith("no "):
        (array if fault == "no vectors" else metadata).unlink()
    elif fault in ("torn", "empty"):
        array.write_bytes(array.read_bytes()[:-1] if fault == "torn" else b"")
    elif fault == "junk":
        metadata.write_bytes(b"junk")
    with pytest.raises(UserError, match=FAULTS[fault]):
        Folder(str(tmp_path / "emb"))


def test_a_damaged_page_of_metadata_is_named(tmp_path: Path) -> None:
    rows = pa.table({"url": [f"u{i}" for i in range(2_000)], "caption": ["a"] * 2_000})
    write_folder(tmp_path, [(rows, np.ones((2_000, 2), np.float16))])
    path = tmp_path / "metadata" / "metadata_0.parquet"
    pq.write_table(rows, path, compression="none", use_dictionary=False, write_page_checksum=True)
    flip_in_pages(path)
    with pytest.raises(UserError, match=r"metadata_0.parquet is not a readable parquet file \(.*CRC"):
        Folder(str(tmp_path))


def test_rows_are_found_by_url_and_caption_or_by_uid_whatever_file_they_are_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [(f"http://host.test/{i}", f"caption {i}" if i % 3 else None) for i in range(40)]
    uids, vectors = [uid(*pair) for pair in pairs], rng.standard_normal((40, 6)).astype(np.float16)
    parts = np.array_split(rng.permutation(40), 4)
    tables = [pa.table({"URL": [pairs[i][0] for i in part], "text": [pairs[i][1] for i in part]}) for part in parts[:2]]
    tables += [pa.table({"UID": [uids[i] for i in part]}) for part in parts[2:]]
    write_folder(tmp_path / "emb", [(table, vectors[part]) for table, part in zip(tables, parts, strict=True)])
    folder = Folder(str(tmp_path / "emb"))
    order = rng.permutation(40)
    asked = [*(uids[i] for i in order), "0" * 32, "f" * 32]
    found = folder.embed(asked, [])
    assert found.dtype == np.float32 and folder.dim == 6
    assert np.array_equal(found[:40], vectors[order].astype(np.float32))
    assert np.isnan(found[40:]).all()


def test_of_a_row_that_comes_twice_the_first_one_counts(tmp_path: Path) -> None:
    write_folder(tmp_path / "emb", [(TWO_ROWS, np.eye(2, 4)), (TWO_ROWS, -np.eye(2, 4))])
    found = Folder(str(tmp_path / "emb")).embed([uid("b", ""), uid("a", "")], [])
    assert np.array_equal(found, np.eye(2, 4, dtype=np.float32)[::-1])


def test_a_folder_is_told_by_its_vectors(tmp_path: Path) -> None:
    write_folder(tmp_path / "emb", [(TWO_ROWS, np.ones((2, 4)))])
    assert Folder.accepts(str(tmp_path / "emb")) and not Folder.accepts(str(tmp_path))
    assert Folder.check(str(tmp_path / "emb")) == 4
