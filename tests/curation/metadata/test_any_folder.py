"""Whatever lies in a folder: each row is read once, or one sentence says which file is wrong."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given, settings

from curation.errors import UserError
from curation.metadata.inputs import find_inputs
from curation.metadata.rows import divide, read_shares
from curation.recipe.config import Recipe, SourceConfig
from curation.schema import RejectReason, uid
from tests.support.metadata_folders import MadeFile, metadata_folders, write_folder


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(metadata_folders())
def test_every_row_is_read_once_or_one_sentence_is_said(
    tmp_path_factory: pytest.TempPathFactory, files: list[MadeFile]
) -> None:
    pattern = write_folder(tmp_path_factory.mktemp("any") / "meta", files)
    whole = {file.name: file.num_rows for file in files if file.num_rows is not None}
    try:
        inputs = find_inputs(Recipe(sources=(SourceConfig(name="m", paths=(pattern,)),)))
        rows = [row for share in divide(inputs, 3) for batch in read_shares(share) for row in batch.to_pylist()]
    except UserError as error:
        event("refused")
        assert "\n" not in str(error) and len(whole) < len(files), error
        return
    event("read")
    assert {item.file for item in inputs} == {file.name for file in files}
    counts = Counter(row["file"] for row in rows)
    assert {name: counts[name] for name in whole} == whole
    assert all(counts[item.file] == item.num_rows for item in inputs if item.num_rows is not None)
    assert sorted({(row["position"], row["row"]) for row in rows}) == sorted((r["position"], r["row"]) for r in rows)
    for row in rows:
        if row["reason"] is None:
            assert row["uid"] == uid(row["url"], row["caption"]) and row["url"].strip()
        else:
            assert row["reason"] in {RejectReason.NO_URL, RejectReason.NOT_TEXT, RejectReason.MALFORMED}
            assert row["file"] not in whole or row["reason"] != RejectReason.MALFORMED


def read_file(folder: Path, name: str, data: bytes, **options: Any) -> list[dict[str, Any]]:
    """The rows of one file, or UserError."""
    (folder / name).write_bytes(data)
    inputs = find_inputs(Recipe(sources=(SourceConfig(name="m", paths=(str(folder / name),), **options),)))
    return [row for share in divide(inputs, 3) for batch in read_shares(share) for row in batch.to_pylist()]


def parquet_of(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


U = "http://a.example/"
URLS = [f"{U}{number}" for number in (1, 2, 3)]
ONE, TWO, THREE = (url.encode() for url in URLS)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"url,text\r\n" + ONE + b",a\n" + TWO + b",b\r\n" + THREE + b",c\r\n", list(zip(URLS, "abc", strict=True))),
        (b"url,text\n" + ONE + b',"a\nb"\n' + TWO + b',"c ""d""\r\ne"\n', [(URLS[0], "a\nb"), (URLS[1], 'c "d"\r\ne')]),
        (b"url\ttext\n" + ONE + b'\t"a\n' + TWO + b"\tb\n", [(URLS[0], '"a'), (URLS[1], "b")]),
        (b"url,text\n", []),
        (b"\xef\xbb\xbfurl,text\n\n\n%s1,\xe2\x80\xa8a\xc2\x85\n" % U.encode(), [(U + "1", "\u2028a\x85")]),
        (b'{"url": "%s1", "text": "a\\u0000b"}\n' % U.encode(), [(U + "1", "a\0b")]),
        (parquet_of(url=pa.array([], pa.string()), text=pa.array([], pa.string())), []),
        (parquet_of(url=[U + "1"], text=pa.array([datetime.date(2021, 3, 1)])), [(U + "1", "2021-03-01")]),
        (parquet_of(url=[U + "1", None], text=[1.0, 2.5]), [(U + "1", "1"), (None, "2.5")]),
    ],
)  # fmt: skip
def test_files_that_look_odd_and_are_whole_are_read(tmp_path: Path, data: bytes, found: list[tuple[str, str]]) -> None:
    assert [(row["url"], row["caption"]) for row in read_file(tmp_path, "f", data)] == found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"url,text,url\n%s1,a,%s2\n" % ((U.encode(),) * 2), "has 2 columns for url"),
        (b"", "is empty: leave it out"),
        (b"\n \n", "is empty: leave it out"),
        (b"[]", "fits no known metadata schema"),
        (b"\xef\xbb\xbf", "is empty: leave it out"),
        (parquet_of(url=[{"href": U}], text=["a"]), "column url is struct<href: string> and url needs text"),
        (parquet_of(url=[[U]], text=["a"]), "column url is list<.*> and url needs text"),
        (b"PAR1" + bytes(40) + b"PAR1", "is not a readable parquet file"),
        (b"PAR1", "is not a readable parquet file"),
    ],
)
def test_files_that_cannot_be_read_are_one_sentence(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_file(tmp_path, "f", data)
    assert "\n" not in str(caught.value) and str(tmp_path / "f") in str(caught.value)


def test_a_folder_that_is_called_as_a_parquet_file_is_refused_and_its_files_are_read(tmp_path: Path) -> None:
    """Spark writes such folders."""
    inside = tmp_path / "x.parquet"
    inside.mkdir()
    (inside / "part-0.parquet").write_bytes(parquet_of(url=[U + "1"], text=["a"]))
    (inside / "_SUCCESS").touch()
    for path in (inside, tmp_path / "*.parquet"):
        with pytest.raises(UserError, match="x.parquet") as caught:
            find_inputs(Recipe(sources=(SourceConfig(name="m", paths=(str(path),)),)))
        assert f"x.parquet is a folder; name the files in it, for example {inside}/*.parquet" in str(caught.value)
    found = find_inputs(Recipe(sources=(SourceConfig(name="m", paths=(f"{inside}/*.parquet",)),)))
    assert [item.file for item in found] == ["part-0.parquet"]
