"""Batches of videos by their frames, from webdataset tars: the paper's last phase (arXiv 2402.04252, section 3).

    FOLDER/0.tar …      KEY.0.jpg, KEY.1.jpg … (or png, webp), numbered in their order, and KEY.txt, the caption

A sample is `frames` of a clip's frames, taken uniformly and cropped alike. The order is a function of (seed, epoch,
number of clips) alone, so any number of ranks gives the same global batches and a run resumes where it stood.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from curation.adopt.tar import DamagedTarError, walk
from curation.errors import UserError
from curation.shards import Member
from trainer.data.batches import BatchSchedule, Tokenizer
from trainer.data.permutation import mix, permute, uniforms
from trainer.data.position import Positioned
from trainer.data.readers import SampleError
from trainer.data.transforms import Transform, decode, lookup_tables, normalise

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_ATTEMPTS = 20
"""Clips that are tried in place of one that cannot be read."""
_LOG = logging.getLogger(__name__)
_CROP, _REPLACE, _ORDER = range(10, 13)
"""Purposes of random numbers, other than those of pictures."""


class Clip(NamedTuple):
    """Where a clip lies: its tar, its frames in their order, and its caption."""

    key: str
    path: Path
    frames: tuple[Member, ...]
    caption: Member


def choose_frames(num_frames: int, count: int) -> list[int]:
    """Which `count` of `num_frames` frames are taken: uniform, in their order, one the middle; few come twice."""
    return [(2 * i + 1) * num_frames // (2 * count) for i in range(count)]


def list_clips(folder: Path) -> list[Clip]:
    """The clips of all tars of `folder`, by tar and place in it.

    Raises:
        UserError: when there is none, a tar is not whole, a caption or a frame is missing.
    """
    paths = sorted(folder.glob("*.tar"), key=lambda path: (len(path.name), path.name)) if folder.is_dir() else []
    if not paths:
        raise UserError(f"There are no tars of clips in {folder}: name a folder of KEY.0.jpg, KEY.1.jpg … and KEY.txt.")
    clips = [clip for path in paths for clip in _list_tar(path)]
    if not clips:
        raise UserError(
            f"The {len(paths)} tars of {folder} hold no clip: a sample is KEY.0.jpg, KEY.1.jpg … and KEY.txt."
        )
    return clips


def _list_tar(path: Path) -> Iterator[Clip]:
    frames: dict[str, dict[int, Member]] = {}
    captions: dict[str, Member] = {}
    for member in _list_members(path):
        place, slash, name = member.name.rpartition("/")
        key, suffix = place + slash + name.partition(".")[0], PurePosixPath(name.lower()).suffix
        if suffix == ".txt":
            captions[key] = member
        elif suffix in SUFFIXES:
            number = re.fullmatch(r".*\.(\d{1,9})", name[: -len(suffix)])
            if number is None:
                raise UserError(f"{path}/{member.name} has no number between its key and {suffix}: number the frames.")
            frames.setdefault(key, {})[int(number[1])] = member
    for key, numbered in frames.items():
        if key not in captions:
            raise UserError(f"{path} has frames of {key} and no {key}.txt: add its caption.")
        missing = next((n for n in range(min(numbered), max(numbered)) if n not in numbered), None)
        if missing is not None:
            raise UserError(f"{path} has no frame {missing} of {key}, which has later ones: add it.")
        yield Clip(key, path, tuple(numbered[number] for number in sorted(numbered)), captions[key])


def _list_members(path: Path) -> Iterator[Member]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            yield from (entry.member for entry in walk(file, size) if entry.member is not None)
    except (DamagedTarError, OSError) as error:
        raise UserError(f"{path} is no whole tar of clips ({error}).") from error


@dataclass
class ClipLoader(Positioned):
    """As `trainer.data.Loader`, for clips: "pixels" is float32 `[b, frames, 3, s, s]`."""

    folder: Path
    frames: int
    batch_size: int
    transform: Transform
    tokenizer: Tokenizer
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    num_threads: int = 4
    epoch: int = 0
    samples_seen: int = 0
    index: Sequence[Clip] = field(init=False)

    def __post_init__(self) -> None:
        self.index = list_clips(self.folder)
        self._tables = lookup_tables()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches from where the loader stands to the end of the epoch; then the next epoch begins."""
        schedule = BatchSchedule(
            epoch=self.epoch,
            epoch_samples=len(self.index),
            start=self.samples_seen,
            batch_size=self.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            pad=True,
        )
        with ThreadPoolExecutor(max(1, self.num_threads), thread_name_prefix="clips") as pool:
            waiting = self._submit(pool, schedule, 0)
            for number in range(len(schedule)):
                read = [future.result() for future in waiting]
                # The next batch is decoded while this one is trained on.
                waiting = self._submit(pool, schedule, number + 1)
                self.samples_seen += schedule.global_batch_size
                yield self._make_batch(read, schedule.positions(number)[1])
        self.epoch, self.samples_seen = self.epoch + 1, 0

    def _submit(
        self, pool: ThreadPoolExecutor, schedule: BatchSchedule, number: int
    ) -> list[Future[tuple[list[np.ndarray], str, str]]]:
        if number >= len(schedule):
            return []
        passes, places = np.divmod(schedule.positions(number)[0], len(self.index))
        rows = permute(places, len(self.index), mix(self.seed, passes, _ORDER))
        return [pool.submit(self._read, int(row), int(turn)) for row, turn in zip(rows, passes, strict=True)]

    def _read(self, row: int, turn: int) -> tuple[list[np.ndarray], str, str]:
        """The frames after the crop, the caption and the key; another clip's, by a hash, where one cannot be read."""
        chosen = row
        for attempt in range(1, MAX_ATTEMPTS + 1):
            clip = self.index[chosen]
            try:
                return *self._read_clip(clip, chosen, turn), clip.key
            except (OSError, SampleError) as error:
                _LOG.warning("clip %s of %s replaced: %s", clip.key, clip.path, error)
                last = f"{clip.path}/{clip.key} ({error})"
            chosen = int(mix(self.seed, turn, row, attempt, _REPLACE) % np.uint64(len(self.index)))
        raise UserError(f"{MAX_ATTEMPTS} clips in a row cannot be read, the last one {last}: check the tars.")

    def _read_clip(self, clip: Clip, row: int, turn: int) -> tuple[list[np.ndarray], str]:
        drawn = uniforms(self.transform.num_uniforms, self.seed, turn, row, _CROP)
        chosen = choose_frames(len(clip.frames), self.frames)
        with clip.path.open("rb") as file:
            pixels = {
                n: self.transform(decode(_read_member(file.fileno(), clip.frames[n])), drawn) for n in set(chosen)
            }
            caption = _read_member(file.fileno(), clip.caption).decode("utf-8", errors="replace").strip()
        return [pixels[number] for number in chosen], caption

    def _make_batch(self, read: Sequence[tuple[list[np.ndarray], str, str]], padding: int) -> dict[str, Any]:
        frames = [frame for clip, _, _ in read for frame in clip]
        pixels = normalise(frames, len(frames), self.transform.image_size, self._tables)
        return {
            "pixels": pixels.unflatten(0, (len(read), self.frames)),
            "tokens": self.tokenizer([caption for _, caption, _ in read]),
            "uid": [key for _, _, key in read],
            "padding": padding,
        }

    def _has_more(self) -> bool:
        return self.samples_seen < len(self.index)

    def _describe_order(self) -> dict[str, Any]:
        names = "\n".join(f"{clip.path.name}/{clip.key}" for clip in self.index)
        return {"clips": hashlib.sha256(names.encode()).hexdigest(), "seed": self.seed, "frames": self.frames}


def _read_member(descriptor: int, member: Member) -> bytes:
    return os.pread(descriptor, member.size, member.offset)
