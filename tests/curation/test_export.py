"""Export: the three files against what the tools that read them expect."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image

from curation.errors import UserError
from curation.export import export
from curation.storage import Root
from jobs import cli
from tests.support import small_root
from tests.support.small_root import SmallRoot


@pytest.fixture
def made(root: Root) -> SmallRoot:
    """A packed root; `kept_uids` are sorted and in shards of eight."""
    made = small_root.build(root)
    small_root.pack(made, small_root.select(made))
    return made


def _kept(made: SmallRoot, source: str | None = None) -> list[str]:
    kept = [uid for uid, row in made.downloads.items() if row["status"] == "ok" and row["width"] / row["height"] >= 1.2]
    return sorted(uid for uid in kept if source in (None, made.samples[uid]["source"]))


def test_uids_are_datacomps_npy(made: SmallRoot, tmp_path: Path) -> None:
    export(made.root, "uids", tmp_path / "uids.npy", where="source = 'coyo' -- only these")
    found = np.load(tmp_path / "uids.npy", allow_pickle=False)
    # As baselines/utils.py of DataComp makes the file from the hex digits.
    wanted = np.array([(int(u[:16], 16), int(u[16:32], 16)) for u in _kept(made, "coyo")], np.dtype("u8,u8"))
    wanted.sort()
    assert found.dtype == wanted.dtype and 0 < len(found) < len(_kept(made))
    assert np.array_equal(found, wanted)


def test_rows_of_a_datacomp_pool_have_the_pools_own_uids(made: SmallRoot, tmp_path: Path) -> None:
    (rel,) = made.root.current("train_index")["files"]  # type: ignore[index]
    table = made.root.read_parquet(rel)
    own = [f"{number + 1:032x}" if number < 3 else f"id {number}" for number in range(len(table))]
    made.root.publish_parquet(rel, table.append_column("source_id", pa.array(own, pa.string())))
    export(made.root, "uids", tmp_path / "uids.npy")
    found = {f"{high:016x}{low:016x}" for high, low in np.load(tmp_path / "uids.npy")}
    assert found == {*own[:3], *table["uid"].to_pylist()[3:]}


def test_a_list_of_shards_feeds_webdataset(made: SmallRoot, tmp_path: Path) -> None:
    export(made.root, "shards", tmp_path / "shards.txt")
    urls = (tmp_path / "shards.txt").read_text().splitlines()
    found = [s["__key__"] for s in wds.WebDataset(urls, shardshuffle=False)]
    assert found == _kept(made) and len(urls) == -(-len(found) // 8)
    export(made.root, "shards", tmp_path / "one.txt", where="shard like '%-000001.tar'")
    assert (tmp_path / "one.txt").read_text().splitlines() == urls[1:2]


def test_a_list_of_shards_cannot_leave_rows_out(made: SmallRoot, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shards hold rows besides the wanted ones"):
        export(made.root, "shards", tmp_path / "shards.txt", where="source = 'coyo'")
    assert not list(tmp_path.glob("*.txt"))


def test_parquet_has_pictures_and_their_description(made: SmallRoot, tmp_path: Path) -> None:
    export(made.root, "parquet", tmp_path / "set.parquet")
    table = pq.read_table(tmp_path / "set.parquet")
    assert table["uid"].to_pylist() == _kept(made)
    for uid, image, text in zip(*(table[name].to_pylist() for name in ("uid", "image", "caption")), strict=True):
        assert image == {"bytes": made.images[uid], "path": f"{uid}.jpg"}
        assert text == made.samples[uid]["caption"]
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert set(features) == set(table.column_names)
    assert features["image"] == {"_type": "Image"} and features["sha256"] == {"dtype": "string", "_type": "Value"}


def test_datasets_reads_the_parquet(made: SmallRoot, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    export(made.root, "parquet", tmp_path / "set.parquet", where="source = 'laion'")
    found = datasets.load_dataset("parquet", data_files=str(tmp_path / "set.parquet"), cache_dir=str(tmp_path / "c"))
    rows = found["train"]
    assert rows["uid"][:] == _kept(made, "laion")
    wanted = Image.open(io.BytesIO(made.images[rows[0]["uid"]]))
    assert np.array_equal(np.asarray(rows[0]["image"]), np.asarray(wanted))


def test_a_column_of_another_type_leaves_the_description_out(made: SmallRoot, tmp_path: Path) -> None:
    (rel,) = made.root.current("train_index")["files"]  # type: ignore[index]
    table = made.root.read_parquet(rel)
    lists = pa.array([["a"]] * len(table), pa.list_(pa.string()))
    made.root.publish_parquet(rel, table.append_column("tags", lists))
    export(made.root, "parquet", tmp_path / "set.parquet")
    found = pq.read_table(tmp_path / "set.parquet")
    assert found["tags"].to_pylist() == [["a"]] * len(table)
    assert b"huggingface" not in (found.schema.metadata or {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "aesthetic >"], "DuckDB refuses the query"),
        (["--where", "colour = 'red'"], "colour"),
        (["--where", "source = 'nobody'"], "No row of .* is left WHERE source = 'nobody'"),
        (["--output", "no/such/folder/x.npy"], "no folder no/such/folder to write x.npy in"),
    ],
)
def test_wrong_use_is_one_sentence_and_status_2(
    made: SmallRoot, tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", made.root.base, "--format", "uids", "--output", str(tmp_path / "out.npy"), *options]
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("curate: ") and error.count("\n") == 1
    assert re.search(said, error)
    assert not list(tmp_path.glob("*.npy"))


def test_nothing_packed(root: Root, tmp_path: Path) -> None:
    small_root.build(root)
    with pytest.raises(UserError, match="has no train_index: run `curate pack` first"):
        export(root, "uids", tmp_path / "x.npy")
    with pytest.raises(UserError, match="allowed: uids, shards, parquet"):
        export(root, "csv", tmp_path / "x.csv")


def test_a_picture_with_another_bit_is_named(made: SmallRoot, tmp_path: Path) -> None:
    row = made.root.read_parquet(made.root.current("train_index")["files"][0]).to_pylist()[0]  # type: ignore[index]
    shard = Path(made.root.full(row["shard"]))
    data = bytearray(shard.read_bytes())
    data[row["offset"] + row["size"] // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=f"{row['shard']} is damaged: .* not those that were stored"):
        export(made.root, "parquet", tmp_path / "set.parquet")
    assert not (tmp_path / "set.parquet").exists()
