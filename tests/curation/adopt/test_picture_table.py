"""Parquet files with pictures as bytes: their rows, the tar that takes the pictures, and files that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.adopt import adopt
from curation.adopt.picture_table import choose_image
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.schema import uid
from curation.shards import read_member
from curation.storage import Root
from curation.verify import verify
from tests.curation.adopt.test_adopt import rejected, rows, statuses
from tests.support.small_root import picture

PICTURES = [picture(number) for number in range(5)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def hugging_face(pictures: list[bytes | None]) -> pa.Array:
    return pa.array([{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(pictures)], STRUCT)


def test_hugging_faces_structs_become_rows_and_a_tar(root: Root, tmp_path: Path) -> None:
    captions = [["a", "b"], [], None, ["e"], ["f"]]
    path = write(tmp_path / "set" / "data" / "train-0.parquet", image=hugging_face(PICTURES), captions=captions)
    adopt(root, [str(tmp_path / "set")])
    found = sorted(rows(root).values(), key=lambda row: row["url"])
    assert [row["url"] for row in found] == [f"file://{path.resolve()}#{n}" for n in range(5)]
    assert [row["caption"] for row in found] == ["a", None, None, "e", "f"] and found[0]["caption_2"] == "b"
    for row, data in zip(found, PICTURES, strict=True):
        assert read_member(root, row["shard"], row["offset"], row["size"], row["sha256"]) == data
        assert row["shard"].startswith("raw/") and row["fetch_round"] is None and row["format"] == "jpeg"
    assert not list(root.scratch().iterdir())


def test_plain_bytes_with_url_and_scores(root: Root, tmp_path: Path) -> None:
    urls = [f"http://e.example/{n}" for n in range(5)]
    columns = {"url": urls, "TEXT": list("abcde"), "similarity": [0.1] * 5, "jpg": PICTURES, "status": ["final"] * 5}
    write(tmp_path / "set" / "0.parquet", **columns)
    adopt(root, [str(tmp_path / "set")])
    assert set(rows(root)) == {uid(url, text) for url, text in zip(urls, "abcde", strict=True)}
    assert statuses(root) == {"ok": 5}
    assert Manifest(root).query("select round(avg(clip_similarity), 2) from manifest").fetchall() == [(0.1,)]


def test_img2datasets_parquet_output_keeps_its_failures(root: Root, tmp_path: Path) -> None:
    write(
        tmp_path / "set" / "00000.parquet",
        url=[f"http://e.example/{n}" for n in range(3)],
        key=["0", "1", "2"],
        caption=["x", "y", "z"],
        status=["success", "failed_to_download", "success"],
        error_message=[None, "HTTP Error 404: Not Found", None],
        original_width=[100, None, 120],
        original_height=[50, None, 60],
        jpg=pa.array([PICTURES[0], None, PICTURES[2]], pa.binary()),
    )
    (tmp_path / "set" / "00000_stats.json").write_text("{}")
    adopt(root, [str(tmp_path / "set")])
    assert statuses(root) == {"ok": 2, "http_404": 1} and rejected(root) == {}
    assert {(row["width"], row["sha256"]) for row in rows(root).values() if row["shard"]} == {(100, None), (120, None)}


def test_rows_that_are_no_pictures_end_as_that(root: Root, tmp_path: Path) -> None:
    data = [PICTURES[0], None, b"", b"<html>", PICTURES[1][:-300]]
    raw = pa.array([b"ok", b"a", b"b", b"c", b"caf\xe9"], pa.binary())
    write(tmp_path / "set" / "0.parquet", image=hugging_face(data), caption=raw)
    write(tmp_path / "set" / "1.parquet", image=hugging_face(PICTURES[:2]), url=["http://e.example/1"] * 2)
    adopt(root, [str(tmp_path / "set")])
    assert statuses(root) == {"ok": 2, "empty": 2, "not_an_image": 1}
    assert rejected(root) == {"not_text": 1, "repeated": 1}


def test_a_killed_adoption_goes_on_where_it_was(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curation.download.journal import Journal

    write(tmp_path / "set" / "0.parquet", pixels=PICTURES, words=list("abcde"))
    add, added = Journal.add, list[str]()

    def stop_after_three(journal: Journal, row: Any, data: bytes = b"") -> None:
        if len(added) == 3:
            raise KeyboardInterrupt
        added.append(row["uid"])
        add(journal, row, data)

    chosen = {"image": "pixels", "caption": "words"}
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "add", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            adopt(root, [str(tmp_path / "set")], columns=chosen)
    monkeypatch.setattr(
        Journal, "add", lambda journal, row, data=b"": (added.append(row["uid"]), add(journal, row, data))
    )
    adopt(root, [str(tmp_path / "set")])
    assert len(added) == 5 and statuses(root) == {"ok": 5}
    assert {row["caption"] for row in rows(root).values()} == set("abcde")
    again = Root(tmp_path / "again")
    adopt(again, [str(tmp_path / "set")], columns=chosen)
    assert rows(again) == rows(root)


def test_files_that_cannot_be_taken_are_named_and_the_others_adopted(
    root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    write(folder / "good.parquet", image=PICTURES)
    write(folder / "many.parquet", left=PICTURES, right=PICTURES)
    write(folder / "none.parquet", n=[1, 2])
    (folder / "torn.parquet").write_bytes((folder / "good.parquet").read_bytes()[:-100])
    with pytest.raises(UserError, match="3 of 4 files could not be adopted"):
        adopt(root, [str(folder)])
    error = capsys.readouterr().err
    for said in ("many.parquet has several columns of bytes (left, right)", "none.parquet has no column of bytes"):
        assert said in error
    assert "torn.parquet is not a readable parquet file" in error and statuses(root) == {"ok": 5}
    write(folder / "torn.parquet", image=PICTURES)
    with pytest.raises(UserError, match="2 of 4"):
        adopt(root, [str(folder)])
    assert statuses(root) == {"ok": 10}
    write(folder / "good.parquet", image=PICTURES[:3])
    with pytest.raises(UserError, match="3 of 4"):
        adopt(root, [str(folder)])
    assert "good.parquet has changed" in capsys.readouterr().err
    assert "good.parquet has 3 members; 5 were accounted for" in (verify(root) or "")


def test_the_parquet_file_of_a_folder_of_files_is_left_aside(
    root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """img2dataset's default, `output_format="files"`."""
    (tmp_path / "set" / "00000").mkdir(parents=True)
    (tmp_path / "set" / "00000" / "000000000.jpg").write_bytes(PICTURES[0])
    (tmp_path / "set" / "00000" / "000000000.json").write_text('{"url": "http://e.example/1", "caption": "x"}')
    write(tmp_path / "set" / "00000.parquet", url=["http://e.example/1"], key=["000000000"], status=["success"])
    (tmp_path / "set" / "00000_stats.json").write_text('{"count": 1}')
    adopt(root, [str(tmp_path / "set")])
    assert set(rows(root)) == {uid("http://e.example/1", "x")} and rejected(root) == {}
    assert "those of 00000/ are taken as files" in capsys.readouterr().err


@pytest.mark.parametrize(("columns", "said"), [({"image": "x"}, "has no column x"), ({"caption": "y"}, "no column y")])
def test_columns_that_are_not_there_refuse_the_file(
    tmp_path: Path, columns: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "set" / "0.parquet", image=PICTURES)
    with pytest.raises(UserError, match="1 of 1 files"):
        adopt(Root(tmp_path / "root"), [str(tmp_path / "set")], columns=columns)
    assert said in capsys.readouterr().err and not (tmp_path / "root").exists()


def test_the_likeliest_column_of_bytes_holds_the_pictures() -> None:
    schema = pa.schema([("hash", pa.binary()), ("Image", STRUCT), ("mask", pa.large_binary())])
    assert choose_image(schema, "x.parquet", {}) == "Image"
    assert choose_image(schema, "x.parquet", {"image": "mask"}) == "mask"
