"""Benchmark sets as webdataset tars, in CLIP_benchmark's layout; pictures stay in their tars and are read by offset.

SET/classnames.txt, SET/zeroshot_classification_templates.txt   a class, and a template with {c}, a line
SET/test/0.tar, 1.tar, …      KEY.jpg (png, webp, …) and KEY.cls, the number of its class; nshards.txt counts the tars
SET/test/…                    KEY.npy instead of KEY.cls, a number a class that is not 0 where the picture has it
SET/test/…                    KEY.0.jpg, KEY.1.jpg … or KEY.mp4, and KEY.cls: a video (`read_clips`)
SET/dataset_type.txt          "retrieval" where KEY.txt stands beside the picture instead, a caption a line

KEY is a member's name up to the first point, as in webdataset; what stands between it and the last suffix is free, so
KEY.0.webp and KEY.output.cls are a picture and its class too.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from curation.adopt.tar import DamagedTarError, walk
from curation.errors import UserError
from curation.npy import parse_array
from curation.shards import BLOCK
from trainer.evaluation.encoder import PICTURE_SUFFIXES, Picture, Stretch
from trainer.evaluation.lines import read_word, split_lines

CLASS_NAMES, TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
_SPLIT = "test"
_NUMBER = re.compile(r"[0-9]{1,9}")
MAX_TEXT_BYTES = 1 << 20
"""The longest class number or file of captions that is read; a picture's captions take some hundred bytes."""


class _Member(NamedTuple):
    """A regular member of a tar."""

    name: str
    place: Stretch


class _Beside(NamedTuple):
    """A class number, vector or captions of one picture."""

    name: str
    data: bytes

    def decode(self) -> str:
        """As text. Raises UserError when it is none."""
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.name} is not UTF-8 text ({error}).") from error


class Clip(NamedTuple):
    """A video in a tar: where its file lies, or its frames in no order, and the number of its class."""

    name: str
    video: Stretch | None
    frames: tuple[Picture, ...]
    label: int


@dataclass
class _Sample:
    """The members of one key that count."""

    pictures: list[_Member] = field(default_factory=list)
    texts: list[_Member] = field(default_factory=list)


def list_tars(folder: Path) -> list[Path]:
    """The tars of the set at `folder`, by number; none where it is no such set."""
    inside = list((folder / _SPLIT).glob("*.tar")) or list(folder.glob("*.tar"))
    return sorted(inside, key=lambda path: (len(path.name), path.name))


def is_retrieval(folder: Path) -> bool:
    """Whether captions stand beside the pictures. Raises UserError."""
    return read_word(folder / "dataset_type.txt", "").lower() == "retrieval"


def read_labels(folder: Path, num_classes: int) -> Iterator[tuple[Picture, int]]:
    """Every picture and the number of its class. Raises UserError when a number is none of `num_classes`."""
    for picture, beside in _read_samples(folder, ".cls"):
        yield picture, _read_class(beside, picture.name, num_classes)


def _read_class(beside: _Beside, name: str, num_classes: int) -> int:
    word = beside.decode().strip()
    if not _NUMBER.fullmatch(word) or int(word) >= num_classes:
        raise UserError(f"{name} has class {word[:40]!r}, but {CLASS_NAMES} names {num_classes}.")
    return int(word)


def read_clips(folder: Path, num_classes: int, video_suffixes: Collection[str]) -> Iterator[Clip]:
    """Every video and the number of its class. Raises UserError when a number is none of `num_classes`."""
    paths = list_tars(folder)
    _require_all(folder, paths)
    is_empty = True
    for path in paths:
        for sample in _group_members(path, ".cls", PICTURE_SUFFIXES | set(video_suffixes)):
            is_empty = False
            yield _make_clip(sample, path, num_classes, video_suffixes)
    if is_empty:
        raise UserError(f"The {len(paths)} tars of {folder} hold no video with a .cls.")


def _make_clip(sample: _Sample, path: Path, num_classes: int, video_suffixes: Collection[str]) -> Clip:
    first = (sample.pictures or sample.texts)[0]
    if len(sample.texts) != 1 or not sample.pictures:
        missing = "no frames" if sample.texts else "no .cls"
        raise UserError(f"{path}/{first.name} has {missing} beside it, or two .cls.")
    videos = [one for one in sample.pictures if PurePosixPath(one.name.lower()).suffix in video_suffixes]
    if videos and len(sample.pictures) > 1:
        raise UserError(f"{path} holds {first.name} and others in one sample: leave the video or its frames.")
    label = _read_class(_read_beside(sample.texts[0], path, ".cls"), first.name, num_classes)
    frames = () if videos else tuple(Picture(f"{path}/{one.name}", one.place) for one in sample.pictures)
    return Clip(f"{path}/{first.name}", videos[0].place if videos else None, frames, label)


def has_label_sets(folder: Path) -> bool:
    """Whether vectors of classes stand beside the pictures. Raises UserError."""
    first = itertools.islice(_list_members(list_tars(folder)[0]), 4)
    return any(member.name.lower().endswith(".npy") for member in first)


def read_label_sets(folder: Path, num_classes: int) -> Iterator[tuple[Picture, frozenset[int]]]:
    """Every picture and the numbers of its classes. Raises UserError when a vector is not of `num_classes`."""
    for picture, beside in _read_samples(folder, ".npy"):
        try:
            vector = parse_array(beside.data)
        except ValueError as error:
            raise UserError(f"{beside.name} is no .npy of the picture's classes ({error}).") from error
        if vector.shape != (num_classes,):
            raise UserError(f"{beside.name} has the shape {list(vector.shape)}, and the set has {num_classes} classes.")
        yield picture, frozenset(np.flatnonzero(vector).tolist())


def read_captions(folder: Path) -> Iterator[tuple[Picture, list[str]]]:
    """Every picture and its captions. Raises UserError when one has none."""
    for picture, beside in _read_samples(folder, ".txt"):
        lines = [line for line in split_lines(beside.decode()) if line]
        if not lines:
            raise UserError(f"{picture.name} has no caption.")
        yield picture, lines


def _read_samples(folder: Path, beside: str) -> Iterator[tuple[Picture, _Beside]]:
    """Every picture of the set and what stands beside it; at least one. Raises UserError."""
    paths = list_tars(folder)
    _require_all(folder, paths)
    is_empty = True
    for path in paths:
        for sample in _group_members(path, beside):
            is_empty = False
            yield _pair(sample, path, beside)
    if is_empty:
        raise UserError(
            f"The {len(paths)} tars of {folder} hold no picture with a {beside}: a sample is KEY{beside} beside "
            f"KEY{', KEY'.join(sorted(PICTURE_SUFFIXES))}."
        )


def _require_all(folder: Path, paths: list[Path]) -> None:
    wanted = read_word(paths[0].parent / "nshards.txt", str(len(paths)))
    if wanted != str(len(paths)):
        raise UserError(f"{folder} is not whole: nshards.txt counts {wanted[:40]} tars, there are {len(paths)}.")


def _group_members(path: Path, beside: str, suffixes: Collection[str] = PICTURE_SUFFIXES) -> Iterator[_Sample]:
    """The samples of one tar in the order of their first member."""
    samples: dict[str, _Sample] = {}
    names: set[str] = set()
    for member in _list_members(path):
        if member.name in names:
            raise UserError(f"{path} holds {member.name} twice, and a sample is one picture: write the tar again.")
        names.add(member.name)
        place, slash, name = member.name.rpartition("/")
        stem, suffix = name.partition(".")[0], PurePosixPath(name.lower()).suffix
        if stem and (suffix in suffixes or suffix == beside):  # webdataset skips .hidden files too
            sample = samples.setdefault(place + slash + stem, _Sample())
            (sample.texts if suffix == beside else sample.pictures).append(member)
    yield from samples.values()


def _pair(sample: _Sample, path: Path, beside: str) -> tuple[Picture, _Beside]:
    """The one picture of `sample` and what stands beside it."""
    for ours, others, what in (
        (sample.pictures, sample.texts, "no picture that is recognised"),
        (sample.texts, sample.pictures, f"no {beside}"),
    ):
        if not ours:
            raise UserError(f"{path}/{others[0].name} has {what} beside it.")
        if len(ours) > 1:
            raise UserError(f"{path} holds {ours[0].name} and {ours[1].name} in one sample: leave one of them.")
    picture = sample.pictures[0]
    return Picture(f"{path}/{picture.name}", picture.place), _read_beside(sample.texts[0], path, beside)


def _read_beside(text: _Member, path: Path, beside: str) -> _Beside:
    if text.place.size > MAX_TEXT_BYTES:
        raise UserError(f"{path}/{text.name} has {text.place.size:,} bytes, which is no {beside} of one picture.")
    return _Beside(f"{path}/{text.name}", text.place.read_bytes())


def _list_members(path: Path) -> Iterator[_Member]:
    """The regular members of the tar, in their order. Raises UserError when it is none, or not whole."""
    try:
        with path.open("rb") as f:
            size = f.seek(0, io.SEEK_END)
            f.seek(max(0, size - BLOCK))
            if f.read() != bytes(BLOCK):  # one cut between two members would be a smaller set
                raise DamagedTarError(size, "no block of zeros ends it")
            for entry in walk(f, size):
                if entry.member is not None:
                    yield _Member(entry.name, Stretch(path, entry.member.offset, entry.member.size))
    except (DamagedTarError, OSError) as error:
        raise UserError(f"{path} is no whole tar of pictures ({error}).") from error
