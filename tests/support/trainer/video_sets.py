"""Small videos of one brightness each that grows with the frames: as files, as frames, and in tars."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import small_root

CLASSES = ("ApplyLipstick", "Archery")
"""As UCF-101's folders are called."""


def make_frames(seed: int, count: int = 10) -> list[np.ndarray]:
    """uint8 `[48, 64, 3]` each."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
    return [base + np.uint8(10 * number % 190) for number in range(count)]


def encode_png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def write_video(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """A file without loss (FFV1 in RGB), so that it decodes to what was written."""
    av = pytest.importorskip("av", reason="PyAV reads video files: the `video` extra")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_frames(folder: Path, frames: Sequence[np.ndarray]) -> Path:
    """A folder of pictures that begin at number 1."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        (folder / f"{number:04d}.png").write_bytes(encode_png(frame))
    return folder


def write_folders(folder: Path) -> Path:
    """Two classes with two videos each, as folders of frames."""
    for number in range(4):
        write_frames(folder / CLASSES[number // 2] / f"v{number}", make_frames(number))
    return folder


def write_ucf(folder: Path) -> Path:
    """The same videos as UCF-101 comes; one more that the list does not name."""
    names = [f"{CLASSES[number // 2]}/v{number}.avi" for number in range(4)]
    for number, name in enumerate(names):
        write_video(folder / "UCF-101" / name, make_frames(number))
    write_video(folder / "UCF-101" / CLASSES[0] / "train.avi", make_frames(9))
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "testlist01.txt").write_text("".join(f"{name}\n" for name in names))
    (lists / "classInd.txt").write_text("".join(f"{index} {name}\n" for index, name in enumerate(CLASSES, start=1)))
    return folder


def write_kinetics(folder: Path) -> Path:
    """The same videos as Kinetics comes."""
    lines = ["label,youtube_id,time_start,time_end,split"]
    for number in range(4):
        label = ("apply lipstick", "archery")[number // 2]
        write_video(folder / "val" / label / f"id-{number}_000003_000013.mkv", make_frames(number))
        lines.append(f"{label},id-{number},3,13,validate")
    (folder / "val.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_tars(folder: Path, *, as_files: bool) -> Path:
    """The same videos in a tar, a video file or its frames a sample."""
    members: dict[str, bytes] = {}
    for number in range(4):
        frames = make_frames(number)
        if as_files:
            members[f"s{number}.avi"] = write_video(folder / f"{number}.avi", frames).read_bytes()
            (folder / f"{number}.avi").unlink()
        else:
            members |= {f"s{number}.{index}.png": encode_png(frame) for index, frame in enumerate(frames)}
        members[f"s{number}.cls"] = str(number // 2).encode()
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "0.tar").write_bytes(small_root.tar(members)[0])
    (folder / "classnames.txt").write_text("apply lipstick\narchery\n")
    return folder
