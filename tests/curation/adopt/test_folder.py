"""One shard as img2dataset left it: which rows its files describe, and which only its statistics count."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.adopt.folder import read_rows
from curation.adopt.listing import list_folder
from curation.adopt.shard import Shard
from curation.adopt.tar_samples import find_pictures, read_content
from curation.shards import Member
from curation.storage import Root
from jobs.cli import main
from tests.support.img2dataset_run import write_tar
from tests.support.small_root import picture


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "There is no folder"),
        ("empty", "holds no tar, no picture"),
        ("file.tar", "There is no folder"),
    ],
)
def test_wrong_folders_are_one_sentence(
    tmp_path: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.tar").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main(["adopt", str(tmp_path / name), "--root", str(tmp_path / "root")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and said in error and error.count("\n") == 1
    assert not (tmp_path / "root").exists()


NAMES = ("00.jpg", "00.json", "01.png", "01.txt", "02.jpg")


def shard_of(folder: Path, files: dict[str, bytes], count: int | None = None) -> tuple[Root, Shard]:
    """Shard 00000 with the members `files`, and `count` in its statistics."""
    write_tar(folder / "00000.tar", files)
    if count is not None:
        (folder / "00000_stats.json").write_text(json.dumps({"count": count}))
    root = Root(folder)
    (shard,) = list_folder(root, str(folder), {}).shards
    return root, shard


def test_shards_come_in_order_with_the_sizes_of_their_files(tmp_path: Path) -> None:
    for name in ("00001", "00000"):
        (tmp_path / f"{name}.tar").write_bytes(b"x" * 10)
    (tmp_path / "00001_stats.json").write_text("{}")
    found = list_folder(Root(tmp_path), f"{tmp_path}/", {}).shards
    assert [(shard.name, shard.num_bytes) for shard in found] == [("00000", (10, None, None)), ("00001", (10, None, 2))]
    assert {shard.source for shard in found} == {tmp_path.name}
    assert found[0].fingerprint != found[1].fingerprint
    assert found[1].beside(".parquet") == f"{tmp_path}/00001.parquet"


@pytest.mark.parametrize(("cut_at", "keys"), [(1.0, ["00", "01", "02"]), (0.45, ["00"])])
def test_members_before_the_damage_of_a_tar_are_listed(tmp_path: Path, cut_at: float, keys: list[str]) -> None:
    root, shard = shard_of(tmp_path, {name: bytes(600) for name in NAMES})
    data = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(data[: int(5 * (512 + 1024) * cut_at)] if cut_at < 1 else data)
    content = read_content(root, shard.path)
    assert [sample.key for sample in content.samples] == keys
    assert (content.damage is None) == (cut_at == 1)
    members = [member for sample in content.samples for member in sample.files.values()]
    assert len(members) == content.num_members
    assert all(data[m.offset : m.offset + m.size] == bytes(600) for m in members)


@pytest.mark.parametrize(
    ("extensions", "chosen"),
    [(["png", "jpg"], "jpg"), (["mask.jpg", "png"], "png"), (["json", "txt"], None), (["small.webp"], "small.webp")],
)
def test_a_plain_extension_is_the_picture_of_a_key(extensions: list[str], chosen: str | None) -> None:
    found = find_pictures({extension: Member(f"k.{extension}", 0, 1) for extension in extensions})
    assert [picture.name for picture in found][:1] == ([f"k.{chosen}"] if chosen else [])


def test_rows_that_no_file_describes_have_the_free_numbers(tmp_path: Path) -> None:
    files = {"000000001.jpg": picture(1), "000000003.jpg": picture(2)}
    rows = read_rows(*shard_of(tmp_path, files, count=5))
    assert rows.table["key"].to_pylist() == ["000000001", "000000003"]
    assert (rows.lost, rows.count) == ((0, 2, 4), 5)


@pytest.mark.parametrize("statistics", ["{ torn", '{"count": "many"}', "[]"])
def test_statistics_that_cannot_be_read_count_nothing(tmp_path: Path, statistics: str) -> None:
    root, shard = shard_of(tmp_path, {"0.jpg": picture(1)})
    (tmp_path / "00000_stats.json").write_text(statistics)
    assert (read_rows(root, shard).lost, read_rows(root, shard).count) == ((), 1)


def test_the_parquet_and_the_tar_complete_each_other(tmp_path: Path) -> None:
    root, shard = shard_of(tmp_path, {"0.jpg": picture(1), "1.jpg": picture(2), "1.txt": b"from the tar"}, count=2)
    described = {"url": ["http://a.test/0"], "CAPTION": ["from parquet"], "key": ["0"], "status": ["success"]}
    pq.write_table(pa.table(described), tmp_path / "00000.parquet")
    rows = read_rows(root, shard)
    assert rows.table["caption"].to_pylist() == ["from parquet", "from the tar"]
    assert rows.table["url"].to_pylist() == ["http://a.test/0", f"file://{shard.path}#1.jpg"]
    assert rows.table["sha256"].to_pylist() == [None, None] and rows.lost == ()
