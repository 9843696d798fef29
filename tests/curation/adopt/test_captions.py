"""Captions of a folder of pictures from one file: which row is of which picture, and what becomes of the others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.adopt import adopt
from curation.adopt.captions import parse_columns, read_captions
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.storage import Root
from jobs.cli import main
from tests.curation.adopt.test_adopt import rejected, rows, statuses
from tests.support.small_root import picture

NAMES = ("a.jpg", "b.jpg", "deep/c.jpg", "deep/d.jpg", "other/d.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, two of them of one bare name."""
    for number, name in enumerate(NAMES):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(picture(number))
    return tmp_path / "set"


def pairs(root: Root) -> set[tuple[str, str | None]]:
    return {(row["source_id"], row["caption"]) for row in rows(root).values()}


def test_rows_find_their_pictures_and_each_row_is_accounted_for(root: Root, folder: Path, tmp_path: Path) -> None:
    (folder / "b.txt").write_text("beside")
    lines = [
        "image,caption,n", "a.jpg,one,1", "./a.jpg,two,2", "a.jpg,one,3", "c.jpg,bare,4",
        f"{folder.resolve()}/other/d.jpg,full,5", "d.jpg,which,6", "gone.jpg,x,7", ",nobody,8", "short",
    ]  # fmt: skip
    file = tmp_path / "captions.csv"
    file.write_text("\n".join(lines))
    adopt(root, [str(folder)], str(file))
    assert pairs(root) == {
        ("a.jpg", "one"), ("a.jpg", "two"), ("b.jpg", "beside"), ("deep/c.jpg", "bare"), ("other/d.jpg", "full"),
        ("deep/d.jpg", None),
    }  # fmt: skip
    assert rejected(root) == {"repeated": 1, "no_picture": 3, "malformed": 1}
    found = Manifest(root).query("select file, row, reason from rejects order by row").fetchall()
    assert [(file, row) for file, row, _ in found] == [("captions.csv", n) for n in (2, 5, 6, 7, 8)]


def test_the_file_may_lie_in_the_folder_and_be_given_again(root: Root, folder: Path) -> None:
    file = folder / "metadata.jsonl"
    lines = [{"file_name": name, "text": f"of {name}"} for name in (*NAMES, "later.jpg", "never.jpg")]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    adopt(root, [str(folder)], str(file))
    adopt(root, [str(folder)], str(file))
    assert len(root.list("plans")) == 1 and rejected(root) == {"no_picture": 2}
    (folder / "later.jpg").write_bytes(picture(9))
    adopt(root, [str(folder)], str(file))
    assert pairs(root) == {(name, f"of {name}") for name in (*NAMES, "later.jpg")}
    assert len(root.list("plans")) == 2 and rejected(root) == {"no_picture": 2}


@pytest.mark.parametrize("kind", ["tsv.gz", "json", "parquet", "latin"])
def test_captions_of_any_kind_of_file(root: Root, folder: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"captions.{kind}"
    if kind == "tsv.gz":
        file.write_bytes(gzip.compress(b"filepath\ttitle\n" + b"".join(f"{n}\t{n}!\n".encode() for n in NAMES)))
    elif kind == "json":
        file.write_text(json.dumps([{"image": n, "captions": [f"{n}!"]} for n in NAMES]))
    elif kind == "parquet":
        pq.write_table(pa.table({"path": NAMES, "caption": [[f"{n}!"] for n in NAMES]}), file)
    else:
        file.write_bytes(b"image,caption\n" + b"".join(f"{n},caf\xe9\n".encode("latin-1") for n in NAMES))
    adopt(root, [str(folder)], str(file))
    if kind == "latin":
        assert rejected(root) == {"not_text": 5}
    else:
        assert pairs(root) == {(n, f"{n}!") for n in NAMES} and statuses(root) == {"ok": 5}


def test_columns_are_named_and_a_url_is_the_pictures(root: Root, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("who,what,where\n" + "".join(f"{n},x,http://e.example/{n}\n" for n in NAMES))
    arguments = ["adopt", str(folder), "--root", root.base, "--captions", str(tmp_path / "c.csv")]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--columns", "image=who,caption=what,url=where"])
    assert ended.value.code == 0
    assert {row["url"] for row in rows(root).values()} == {f"http://e.example/{n}" for n in NAMES}


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("name,words\na.jpg,x\n", {}, "has no column for the names of pictures"),
        ("image,words\na.jpg,x\n", {}, "has no column for captions"),
        ("image,words\na.jpg,x\n", {"caption": "word"}, "has no column word, which --columns names"),
        ("", {}, "is empty"),
    ],
)
def test_a_file_without_the_columns_is_refused_before_anything(
    folder: Path, tmp_path: Path, text: str, columns: dict[str, str], said: str
) -> None:
    (tmp_path / "c.csv").write_text(text)
    root = Root(tmp_path / "root")
    with pytest.raises(UserError, match=said):
        adopt(root, [str(folder)], str(tmp_path / "c.csv"), columns)
    assert not Path(root.path).exists()


def test_a_file_that_is_not_there_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file .*nothing\.csv"):
        read_captions(str(tmp_path / "nothing.csv"), {})
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder\.csv cannot be opened \(Is a directory\)"):
        read_captions(str(tmp_path / "folder.csv"), {})


@pytest.mark.parametrize("text", ["image", "picture=x", "image=", "image=a,,"])
def test_columns_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--columns has"):
        parse_columns(text)
