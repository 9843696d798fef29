"""Benchmark sets as webdataset tars, in CLIP_benchmark's layout; pictures stay in their tars and are read by offset.

SET/classnames.txt, SET/zeroshot_classification_templates.txt   a class, and a template with {c}, a line
SET/test/0.tar, 1.tar, …      KEY.jpg (png, webp) and KEY.cls, the number of its class; nshards.txt counts the tars
SET/dataset_type.txt          "retrieval" where KEY.txt stands beside the picture instead, a caption a line
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from curation.errors import UserError
from trainer.evaluation.encoder import Picture, Stretch

CLASS_NAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
_SPLIT = "test"
_PICTURES = frozenset({"jpg", "jpeg", "png", "webp"})


def list_tars(folder: Path) -> list[Path]:
    """The tars of the set at `folder`, by number; none where it is no such set."""
    inside = list((folder / _SPLIT).glob("*.tar")) or list(folder.glob("*.tar"))
    return sorted(inside, key=lambda path: (len(path.name), path.name))


def is_retrieval(folder: Path) -> bool:
    """Whether captions stand beside the pictures."""
    file = folder / "dataset_type.txt"
    return file.is_file() and file.read_text().strip().lower() == "retrieval"


def read_labels(folder: Path, num_classes: int) -> Iterator[tuple[Picture, int]]:
    """Every picture and the number of its class. Raises UserError when a number is none of `num_classes`."""
    for picture, text in _read_samples(folder, "cls"):
        if not text.strip().isdigit() or int(text) >= num_classes:
            raise UserError(f"{picture.name} has class {text.strip()!r}, but {CLASS_NAMES} names {num_classes}.")
        yield picture, int(text)


def read_captions(folder: Path) -> Iterator[tuple[Picture, list[str]]]:
    """Every picture and its captions. Raises UserError when one has none."""
    for picture, text in _read_samples(folder, "txt"):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            raise UserError(f"{picture.name} has no caption.")
        yield picture, lines


def _read_samples(folder: Path, beside: str) -> Iterator[tuple[Picture, str]]:
    paths = list_tars(folder)
    _require_all(folder, paths)
    for path in paths:
        try:
            yield from _read_tar(path, beside)
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is no whole tar of pictures and .{beside} files ({error}).") from error


def _require_all(folder: Path, paths: list[Path]) -> None:
    counted = paths[0].parent / "nshards.txt"
    wanted = counted.read_text().strip() if counted.is_file() else str(len(paths))
    if wanted != str(len(paths)):
        raise UserError(f"{folder} is not whole: nshards.txt counts {wanted} tars, there are {len(paths)}.")


def _read_tar(path: Path, beside: str) -> Iterator[tuple[Picture, str]]:
    """Samples of one tar in the order of their first member; a member's key is its name up to the first point."""
    pictures: dict[str, Picture] = {}
    texts: dict[str, str] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            place, slash, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            key = place + slash + stem
            if suffix.lower() in _PICTURES:
                stretch = Stretch(path, member.offset_data, member.size)
                pictures[key] = Picture(f"{path}/{member.name}", stretch)
            elif suffix == beside and (content := archive.extractfile(member)):
                texts[key] = content.read().decode("utf-8")
    alone = next((key for key in pictures if key not in texts), None)
    if alone is not None:
        raise UserError(f"{pictures[alone].name} has no .{beside} beside it.")
    yield from ((picture, texts[key]) for key, picture in pictures.items())
