"""The 27 sets by name: where they are found, how many classes they need, and whose words are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from tests.support import small_root
from tests.trainer.evaluation.test_tars import write_set
from trainer.evaluation import paper_sets, prompts

PICTURE = small_root.picture(1)


def write_folders(folder: Path, names: list[str]) -> Path:
    """A set with one picture a class."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "0.jpg").write_bytes(PICTURE)
    return folder


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("IN-1K", "IN-1K"),
        ("wds_imagenet1k", "IN-1K"),
        ("vtab/caltech101", "Caltech101"),
        ("wds_vtab-pcam", "PCam"),
        ("wds_imagenet_sketch", "IN-Sketch"),
        ("wds/imagenet-a", "IN-A"),
        ("FGVC-Aircraft", "Aircraft"),
        ("voc2007_multilabel", "VOC2007"),
    ],
)
def test_a_set_is_found_by_its_name_here_and_in_clip_benchmark(place: str, name: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / "another").mkdir()
    assert paper_sets.find_sets(tmp_path, ()) == {name: tmp_path / place}
    assert paper_sets.find_sets(tmp_path, (name,)) == {name: tmp_path / place}


@pytest.mark.parametrize(
    ("wanted", "says"),
    [((), "holds none of the 27 sets"), (("CIFAR",), "no set 'CIFAR'"), (("Pets",), "no folder of Pets")],
)
def test_a_set_that_is_not_there_is_one_sentence(wanted: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        paper_sets.find_sets(tmp_path, wanted)
    with pytest.raises(UserError, match="no folder"):
        paper_sets.find_sets(tmp_path / "absent", wanted)


def test_our_words_are_used_where_the_set_brings_none(tmp_path: Path) -> None:
    found = paper_sets.read_set("EuroSAT", write_folders(tmp_path / "a", list(prompts.NAMES["EuroSAT"])))
    assert found.names[1] == "a forest" and found.templates == prompts.TEMPLATES["EuroSAT"] and not found.own_prompts
    by_number = paper_sets.read_set("FER2013", write_folders(tmp_path / "b", list("0123456")))
    assert by_number.names == tuple(prompts.NAMES["FER2013"].values())
    (tmp_path / "b" / "templates.txt").write_text("a {} face\n")
    (tmp_path / "b" / "classes.tsv").write_text("".join(f"{number}\tface {number}\n" for number in range(7)))
    own = paper_sets.read_set("FER2013", tmp_path / "b")
    assert own.own_prompts and own.templates == ("a {} face",) and own.names[6] == "face 6"


def test_tars_without_names_take_ours_and_those_with_names_their_own(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "pcam", [("a.cls", b"1"), ("a.jpg", PICTURE)], "cat\ndog\n")
    assert paper_sets.read_set("PCam", folder).names == ("cat", "dog")
    (folder / "classnames.txt").unlink()
    assert paper_sets.read_set("PCam", folder).names == tuple(prompts.NAMES["PCam"].values())


def test_a_class_file_of_another_length_is_one_sentence(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "pcam", [("a.cls", b"1"), ("a.jpg", PICTURE)])
    with pytest.raises(UserError, match="has 3 classes, and PCam has 2: correct its class file") as caught:
        paper_sets.read_set("PCam", folder)
    assert "\n" not in str(caught.value)
