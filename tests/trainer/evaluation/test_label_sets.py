"""Pictures with several classes: PASCAL VOC's folders and CLIP_benchmark's vectors say the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from tests.support import small_root
from tests.trainer.evaluation.test_tars import write_set
from trainer.evaluation import label_sets, paper_sets, prompts, sources

PICTURE = small_root.picture(1)
NAMES = list(prompts.NAMES["VOC2007"])


def write_devkit(folder: Path) -> Path:
    """Three pictures: a dog and a cat, a car that is difficult, and a dog."""
    present = {"dog": {"000001", "000003"}, "cat": {"000001"}, "car": set[str]()}
    lists = folder / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    pictures = folder / "VOCdevkit" / "VOC2007" / "JPEGImages"
    pictures.mkdir()
    numbers = ("000001", "000002", "000003")
    for number in numbers:
        (pictures / f"{number}.jpg").write_bytes(PICTURE)
    for name in NAMES:
        marks = [1 if number in present.get(name, ()) else -1 for number in numbers]
        if name == "car":
            marks[1] = 0
        text = "".join(f"{number} {mark:>2}\n" for number, mark in zip(numbers, marks, strict=True))
        (lists / f"{name}_test.txt").write_text(text)
    return folder


def vector(*numbers: int, size: int = 20) -> bytes:
    buffer = io.BytesIO()
    marks = np.zeros(size, np.float32)
    marks[list(numbers)] = 1
    np.save(buffer, marks)
    return buffer.getvalue()


def test_a_devkit_and_vectors_of_tars_are_the_same_set(tmp_path: Path) -> None:
    devkit = paper_sets.read_set("VOC2007", write_devkit(tmp_path / "voc2007"))
    dog, cat, car = (NAMES.index(name) for name in ("dog", "cat", "car"))
    assert devkit.label_sets == ({dog, cat}, {car}, {dog}) and devkit.labels == ()
    assert devkit.names[NAMES.index("diningtable")] == "dining table"
    members = [("a.jpg", PICTURE), ("a.npy", vector(dog, cat)), ("b.jpg", PICTURE), ("b.npy", vector(car))]
    members += [("c.jpg", PICTURE), ("c.npy", vector(dog))]
    tars = paper_sets.read_set("VOC2007", write_set(tmp_path / "t", members, "".join(f"{name}\n" for name in NAMES)))
    assert tars.label_sets == devkit.label_sets


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("picture", "1 of 3 pictures of"),
        ("line", "is no picture and -1, 0 or 1"),
        ("order", "lists other pictures than aeroplane_test.txt"),
        ("lists", "has no CLASS_test.txt"),
    ],
)
def test_a_devkit_that_is_not_whole_is_one_sentence(damage: str, says: str, tmp_path: Path) -> None:
    place = write_devkit(tmp_path) / "VOCdevkit" / "VOC2007"
    if damage == "picture":
        (place / "JPEGImages" / "000002.jpg").unlink()
    if damage == "line":
        (place / "ImageSets" / "Main" / "dog_test.txt").write_text("000001 yes\n")
    if damage == "order":
        (place / "ImageSets" / "Main" / "dog_test.txt").write_text("000001 1\n")
    if damage == "lists":
        for file in (place / "ImageSets" / "Main").iterdir():
            file.unlink()
    with pytest.raises(UserError, match=says) as caught:
        label_sets.read_devkit(tmp_path, ["a {}"], {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [(vector(1, size=3), r"shape \[3\], and the set has 20"), (b"x", "is no .npy"), (b"", "is no .npy")],
)
def test_a_vector_that_is_none_is_one_sentence(data: bytes, says: str, tmp_path: Path) -> None:
    folder = write_set(tmp_path, [("a.jpg", PICTURE), ("a.npy", data)], "".join(f"{name}\n" for name in NAMES))
    with pytest.raises(UserError, match=says) as caught:
        sources.read_classes(folder, ["a {}"])
    assert "\n" not in str(caught.value)
