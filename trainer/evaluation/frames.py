"""Items of several frames, videos above all: which frames are taken, and how they are read.

Of n frames k are taken at (i + 1/2) n / k, so one is the frame in the middle, and a video of fewer frames gives some
twice. Files are decoded by PyAV, from the first frame on: seeking is not exact in every container.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation.errors import UserError
from trainer.data.clips import choose_frames
from trainer.data.readers import SampleError
from trainer.data.transforms import MAX_PIXELS, decode
from trainer.evaluation.encoder import FrameSource, Picture, Stretch

VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg"})
_MOST_LOST = 0.1
"""A container may count some frames too many; a file without more of them is cut."""


@dataclass(frozen=True)
class FrameSet:
    """A set to classify whose items have as many frames each; `labels` are the numbers of their classes."""

    names: tuple[str, ...]
    templates: tuple[str, ...]
    items: tuple[FrameSource, ...]
    labels: tuple[int, ...]
    own_prompts: bool = False

    @property
    def prompts(self) -> list[list[str]]:
        """Per class, its name in every template."""
        return [[template.replace("{}", name) for template in self.templates] for name in self.names]


def choose_all(num_frames: int, counts: Sequence[int]) -> list[int]:
    """The frames of every count, one count after the other."""
    return [frame for count in counts for frame in choose_frames(num_frames, count)]


@dataclass(frozen=True)
class Pictures:
    """A video whose frames are pictures of their own, in their order."""

    name: str
    pictures: tuple[Picture, ...]
    counts: tuple[int, ...]

    def read_frames(self) -> list[np.ndarray]:
        """The frames of every count. Raises SampleError, which names the frame, and OSError."""
        chosen = choose_all(len(self.pictures), self.counts)
        decoded = {number: _decode(self.pictures[number]) for number in sorted(set(chosen))}
        return [decoded[number] for number in chosen]


def _decode(picture: Picture) -> np.ndarray:
    try:
        return decode(picture.data())
    except SampleError as error:
        raise SampleError(f"its frame {picture.name}: {error}") from error


@dataclass(frozen=True)
class VideoFile:
    """A video in a file, or in a stretch of one."""

    name: str
    source: Path | Stretch
    counts: tuple[int, ...]

    def read_frames(self) -> list[np.ndarray]:
        """The frames of every count. Raises SampleError and OSError."""
        data = self.source.read_bytes() if isinstance(self.source, Stretch) else None
        num_frames = self._count_packets(data)
        frames, seen = self._decode(data, set(choose_all(num_frames, self.counts)))
        if seen != num_frames:
            frames, _ = self._decode(data, set(choose_all(seen, self.counts)))
        return [frames[number] for number in choose_all(seen, self.counts)]

    def _open(self, data: bytes | None) -> Any:
        return import_av(self.name).open(io.BytesIO(data) if data is not None else str(self.source))

    def _count_packets(self, data: bytes | None) -> int:
        """About how many frames there are, without decoding any."""
        try:
            with self._open(data) as container:
                return max(1, sum(int(packet.size > 0) for packet in container.demux(_find_stream(container))))
        except (OSError, ValueError) as error:
            raise SampleError(_tell(error)) from error

    def _decode(self, data: bytes | None, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
        """The wanted frames by number, uint8 `[h, w, 3]`, and how many there are."""
        frames, seen = {}, 0
        try:
            with self._open(data) as container:
                stream = _find_stream(container)
                for frame in container.decode(stream):
                    if seen in wanted:
                        frames[seen] = frame.to_ndarray(format="rgb24")
                    seen += 1
                if seen < (1 - _MOST_LOST) * stream.frames or not seen:
                    raise SampleError(f"{seen} of its {max(1, stream.frames)} frames decode, so it is cut")
        except (OSError, ValueError) as error:
            raise SampleError(_tell(error)) from error
        return frames, seen


def _find_stream(container: Any) -> Any:
    if not container.streams.video:
        raise SampleError("it has no pictures")
    stream = container.streams.video[0]
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise SampleError(f"its frames have more than {MAX_PIXELS:,} pixels")
    return stream


def _tell(error: Exception) -> str:
    """FFmpeg's errors name the file again, over several lines for some."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def import_av(name: str) -> Any:
    """PyAV, which not every installation has. Raises UserError, naming what needs it."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise UserError(f"{name} is a video file, which PyAV reads: pip install 'clip-curation[video]'.") from error
