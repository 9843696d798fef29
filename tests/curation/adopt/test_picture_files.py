"""Folders of pictures that are files: each file is a row, belongs to one, is a reject, or is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from curation.adopt import adopt
from curation.adopt.picture_files import file_url, find_pictures
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.schema import uid
from curation.shards import read_member
from curation.storage import Root
from curation.verify import find_differences, verify
from tests.curation.adopt.test_adopt import rejected, rows, statuses
from tests.support.img2dataset_run import write_tar
from tests.support.s3_server import options, s3
from tests.support.small_root import picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, two of them nested, with captions in a text, in JSON, behind two extensions, and none."""
    made = tmp_path / "my pictures"
    (made / "more").mkdir(parents=True)
    for number, name in enumerate(("22.05.jpg", "b#1.png", "more/c.jpg", "more/d")):
        (made / name).write_bytes(picture(number))
    (made / "22.05.txt").write_text("a text")
    (made / "b#1.json").write_text(json.dumps({"captions": ["", "of a list"]}))
    (made / "more" / "c.jpg.txt").write_text("behind two extensions")
    return made


def adopt_quietly(root: Root, folder: Path | str) -> None:
    adopt(root, [str(folder)])
    assert verify(root) is None


def by_name(root: Root) -> dict[str, dict[str, object]]:
    return {row["source_id"]: row for row in rows(root).values()}


def test_each_picture_is_a_row_with_the_caption_beside_it(root: Root, folder: Path) -> None:
    adopt_quietly(root, folder)
    found = by_name(root)
    captions = {"22.05.jpg": "a text", "b#1.png": "of a list", "more/c.jpg": "behind two extensions", "more/d": None}
    assert {name: row["caption"] for name, row in found.items()} == captions
    for name, row in found.items():
        path = folder.resolve() / name
        assert (row["url"], row["shard"], row["offset"], row["size"]) == (
            path.as_uri(), str(path), 0, path.stat().st_size
        )  # fmt: skip
        assert row["sha256"] == row["stored_sha256"] and row["source"] == "my pictures" and row["num_bytes"]
        data = read_member(root, str(path), 0, path.stat().st_size, str(row["sha256"]))
        assert data == path.read_bytes()
    assert not Path(root.path, "raw").exists()


def test_what_is_no_picture_is_a_reject_once(root: Root, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "README.md").write_text("nothing")
    (folder / "alone.txt").write_text("a caption without a picture")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(picture(3)[:-200])
    adopt_quietly(root, folder)
    assert statuses(root) == {"ok": 4, "not_an_image": 1, "empty": 1, "truncated": 1}
    assert rejected(root) == {"no_picture": 2} and "2 files are no pictures" in capsys.readouterr().err
    (folder / "new.jpg").write_bytes(picture(20))
    adopt_quietly(root, folder)
    assert rejected(root) == {"no_picture": 2} and statuses(root)["ok"] == 5


def test_a_second_adoption_takes_new_pictures_and_names_changed_ones(
    root: Root, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adopt_quietly(root, folder)
    before = rows(root)
    capsys.readouterr()
    adopt_quietly(root, folder)
    assert capsys.readouterr().err == f"Nothing is new since the last adoption: {root.base} has it all.\n"
    assert len(root.list("plans")) == 1
    (folder / "more" / "new.webp").write_bytes(picture(30))
    whole = (folder / "more" / "c.jpg").read_bytes()
    (folder / "more" / "c.jpg").write_bytes(picture(31))
    with pytest.raises(UserError, match="1 of 5 files could not be adopted"):
        adopt(root, [str(folder)])
    assert "more/c.jpg has changed since it was adopted" in capsys.readouterr().err
    assert "more/c.jpg" in (verify(root) or "")
    (folder / "more" / "c.jpg").write_bytes(whole)
    after = rows(root)
    assert len(after) == 5 and {key: after[key] for key in before} == before


def test_a_changed_caption_is_named_too(root: Root, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adopt_quietly(root, folder)
    (folder / "22.05.txt").write_text("another text")
    with pytest.raises(UserError, match="1 of 4"):
        adopt(root, [str(folder)])
    assert "22.05.jpg has changed" in capsys.readouterr().err


@pytest.mark.parametrize("change", [b"", b"more behind it", b"x"])
def test_verify_names_a_picture_whose_file_has_changed(root: Root, folder: Path, change: bytes) -> None:
    adopt_quietly(root, folder)
    path = folder / "22.05.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\0" if change == b"x" else whole + change if change else whole[:-1])
    assert "22.05.jpg" in (verify(root) or "")
    path.unlink()
    assert "22.05.jpg" in (verify(root) or "") and list(find_differences(root, quick=True))


def test_links_pipes_and_names_without_text_are_named(
    root: Root, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere.jpg").write_bytes(picture(40))
    (folder / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (folder / "broken.jpg").symlink_to(tmp_path / "nothing.jpg")
    (folder / "again").symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "22.05.json")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(picture(41))
    with pytest.raises(UserError, match="5 of 10 files could not be adopted"):
        adopt(root, [str(folder)])
    error = capsys.readouterr().err
    for said in ("broken.jpg is a pipe, a device", "again is a link to a folder", "pipe.jpg is a pipe", "is no UTF-8"):
        assert said in error
    assert statuses(root) == {"ok": 5} and verify(root) is None


def test_tars_pictures_and_parquet_in_one_folder_each_go_their_way(root: Root, folder: Path) -> None:
    write_tar(folder / "deep" / "er" / "pool-train-0001.tar", {"k.jpg": picture(50), "k.txt": b"tar", "n.txt": b""})
    write_tar(folder / "deep" / "00000_a.TAR", {"k.jpg": picture(51)})
    adopt_quietly(root, folder)
    assert statuses(root) == {"ok": 6} and rejected(root) == {"no_picture": 1}
    files = Manifest(root).query("select file, row from rejects").fetchall()
    assert files == [("deep/er/pool-train-0001.tar", 1)]
    assert {row["source"] for row in rows(root).values()} == {"my pictures"}


def test_the_root_inside_of_the_folder_is_left_out(folder: Path) -> None:
    root = Root(folder / "root")
    adopt_quietly(root, folder)
    adopt_quietly(root, folder)
    assert len(root.list("plans")) == 1 and statuses(root) == {"ok": 4}


def test_a_picture_that_vanishes_ends_as_lost(root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import curation.adopt as adoption

    publish = adoption._publish_plan

    def publish_and_delete(*arguments: object) -> object:
        made = publish(*arguments)  # type: ignore[arg-type]
        (folder / "22.05.jpg").unlink()
        return made

    monkeypatch.setattr(adoption, "_publish_plan", publish_and_delete)
    adopt_quietly(root, folder)
    assert statuses(root) == {"ok": 3, "lost_by_engine": 1}


def test_a_kill_before_the_pictures_are_read_loses_nothing(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("curation.adopt.end_input", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            adopt(root, [str(folder)])
    assert root.units("samples") and not root.units("downloads")
    (folder / "22.05.txt").unlink()
    with pytest.raises(UserError, match="1 of 4"):  # its caption is another one now
        adopt(root, [str(folder)])
    assert statuses(root) == {"ok": 4} and by_name(root)["22.05.jpg"]["caption"] == "a text"


def test_a_folder_with_nothing_to_adopt_is_one_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "set" / "empty").mkdir(parents=True)
    root = Root(tmp_path / "root")
    with pytest.raises(UserError, match="holds no tar, no picture and no parquet"):
        adopt(root, [str(tmp_path / "set")])
    (tmp_path / "set" / "README.md").write_text("x")
    with pytest.raises(UserError, match="it has 1 other files"):
        adopt(root, [str(tmp_path / "set")])
    assert not Path(root.path).exists()


def test_one_picture_in_two_folders_that_overlap_is_one_row(root: Root, folder: Path) -> None:
    adopt(root, [str(folder), str(folder / "more")])
    assert statuses(root) == {"ok": 4} and rejected(root) == {"repeated": 2}


def test_many_pictures_are_units_of_some_thousand(root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.adopt.picture_files.FILES_PER_UNIT", 3)
    adopt_quietly(root, folder)
    assert [root.read_parquet(f"samples/{unit}.parquet").num_rows for unit in root.units("samples")] == [3, 1]


def test_a_url_in_the_json_beside_a_picture_is_its_url(root: Root, folder: Path) -> None:
    (folder / "b#1.json").write_text(json.dumps({"url": "http://e.example/1", "caption": "x", "uid": "0" * 32}))
    adopt_quietly(root, folder)
    assert uid("http://e.example/1", "x") in rows(root) and by_name(root)["b#1.png"]["url"] == "http://e.example/1"


def test_files_belong_to_the_picture_of_their_name(tmp_path: Path) -> None:
    names = ("a.jpg", "a.png", "a.txt", "a.npy", "d/a.txt", "d.x/k", "d.x/k.json", ".txt", "z.JPG.json", "z.JPG")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(1) if name == "d.x/k" else b"x")
    root = Root(tmp_path / "root")
    root.admit(str(tmp_path))
    found, others = find_pictures(root, str(tmp_path), dict.fromkeys(names, 1000))
    assert {name: [one for one, _ in of.beside] for name, of in found.items()} == {
        "a.jpg": ["a.txt", "a.npy"], "a.png": ["a.txt", "a.npy"], "d.x/k": ["d.x/k.json"], "z.JPG": ["z.JPG.json"]
    }  # fmt: skip
    assert set(others) == {"d/a.txt", ".txt"}


def test_the_url_of_a_file_is_pythons(tmp_path: Path) -> None:
    for name in ("a b.jpg", "ü#?%.jpg", "q\n.jpg"):
        assert file_url(str(tmp_path / name)) == (tmp_path / name).as_uri()
    assert file_url("s3://bucket/a b.jpg") == "s3://bucket/a b.jpg"


@pytest.mark.slow
def test_pictures_in_a_bucket(folder: Path) -> None:
    with s3() as endpoint:
        root = Root("s3://curation/root", **options(endpoint))
        root.fs.put(str(folder), "curation/set", recursive=True)
        adopt_quietly(root, "s3://curation/set/")
        found = by_name(root)
        assert statuses(root) == {"ok": 4} and set(found) == {"22.05.jpg", "b#1.png", "more/c.jpg", "more/d"}
        assert {row["url"] for row in found.values()} == {row["shard"] for row in found.values()}
        adopt_quietly(root, "s3://curation/set")
        assert len(root.list("plans")) == 1
