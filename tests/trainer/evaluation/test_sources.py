"""Sets on the disk: what is read of them, and what is refused in one sentence."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from curation.errors import UserError
from tests.support import small_root
from tests.support.trainer import evaluation_set
from trainer.evaluation import sources


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("a tar is absent", "nshards.txt counts 2 tars, there are 1"),
        ("no names", "no classnames.txt"),
        ("few names", "has class '2', but classnames.txt names 2"),
        ("no label", "has no .cls beside it"),
        ("half a tar", "is no whole tar"),
        ("no retrieval", "dataset_type.txt does not say so"),
    ],
)
def test_tars_that_cannot_be_read_are_one_sentence(damage: str, says: str, classes: Path, tmp_path: Path) -> None:
    folder = evaluation_set.write_class_tars(classes, tmp_path / "set")
    tar = folder / "test" / "1.tar"
    if damage == "a tar is absent":
        tar.unlink()
    if damage == "no names":
        (folder / "classnames.txt").unlink()
    if damage == "few names":
        (folder / "classnames.txt").write_text("a\nb\n")
    if damage == "no label":
        tar.write_bytes(small_root.tar({"x.png": b"x"})[0])
    if damage == "half a tar":
        tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(UserError) as caught:
        sources.read_captions(folder) if damage == "no retrieval" else sources.read_classes(folder, ["a {}"])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_names_and_templates_beside_the_pictures_count(tmp_path: Path) -> None:
    folder = evaluation_set.write_classes(tmp_path / "set")
    found = sources.read_classes(folder, ["a photo of a {}."])
    assert found.names == ("blue square", "green square", "red square")
    assert found.prompts[0] == ["a photo of a blue square."]
    (folder / "classes.tsv").write_text("red_square\tscarlet\nblue_square\tazure\n\ngreen_square\tlime\n")
    (folder / "templates.txt").write_text("a {}\nthe {}, seen {} times\n")
    found = sources.read_classes(folder, ["a photo of a {}."])
    assert found.prompts[2] == ["a scarlet", "the scarlet, seen scarlet times"]
    assert len(found.pictures) == 13 and found.labels == (0,) * 4 + (1,) * 4 + (2,) * 5


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("absent", "no folder"),
        ("one class", "two classes"),
        ("empty class", "has no pictures"),
        ("unnamed class", "names no green_square"),
        ("no tab", "Line 1 of"),
        ("two names", "names red_square twice"),
        ("template", "has no {} in 'a dog'"),
        ("empty templates", "is empty"),
        ("wordnet", "WordNet"),
        ("not text", "not UTF-8"),
    ],
)
def test_a_set_that_cannot_be_read_is_one_sentence(damage: str, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    if damage != "absent":
        evaluation_set.write_classes(folder)
    if damage == "one class":
        for name in ("red_square", "green_square"):
            (folder / name).rename(tmp_path / name)
    if damage == "empty class":
        (folder / "zebra").mkdir()
    if damage == "unnamed class":
        (folder / "classes.tsv").write_text("red_square\tred\nblue_square\tblue\n")
    if damage == "no tab":
        (folder / "classes.tsv").write_text("red_square red\n")
    if damage == "two names":
        (folder / "classes.tsv").write_text("red_square\tred\nred_square\tscarlet\n")
    if damage == "template":
        (folder / "templates.txt").write_text("a {}\na dog\n")
    if damage == "empty templates":
        (folder / "templates.txt").write_text("\n")
    if damage == "wordnet":
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"n0144076{number}")
    if damage == "not text":
        (folder / "classes.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError) as caught:
        sources.read_classes(folder, ["a {}"])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_captions_file_needs_its_pictures(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    (tmp_path / "c.tsv").write_text("a.png\tone\na.png\ttwo\n")
    found = sources.read_captions(tmp_path / "c.tsv")
    assert (found.texts, found.image_of, len(found.pictures)) == (("one", "two"), (0, 0), 1)
    (tmp_path / "c.tsv").write_bytes("\ufeffa.png\tA kite\u2028over the sea\r\n".encode())
    assert sources.read_captions(tmp_path / "c.tsv").texts == ("A kite\u2028over the sea",)
    for text, says in (("a.png\tone\nb.png\ttwo\n", "b.png"), ("a.png one\n", "Line 1"), ("", "no captions")):
        (tmp_path / "c.tsv").write_text(text)
        with pytest.raises(UserError, match=says):
            sources.read_captions(tmp_path / "c.tsv")
    with pytest.raises(UserError, match="no file"):
        sources.read_captions(tmp_path / "absent.tsv")
