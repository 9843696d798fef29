"""Frames of a video: which are taken, and that a file gives the ones that were written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from tests.support.trainer import video_sets
from trainer.data.clips import choose_frames
from trainer.data.readers import SampleError
from trainer.evaluation import frames
from trainer.evaluation.encoder import Picture, Stretch


def test_frames_are_uniform_and_one_is_the_middle() -> None:
    assert choose_frames(10, 1) == [5] and choose_frames(11, 1) == [5]
    assert choose_frames(16, 8) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert choose_frames(300, 8) == [18, 56, 93, 131, 168, 206, 243, 281]
    assert choose_frames(2, 4) == [0, 0, 1, 1] and choose_frames(1, 3) == [0, 0, 0]
    assert frames.choose_all(10, (1, 2)) == [5, 2, 7]


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
@pytest.mark.parametrize("count", [1, 10, 37])
def test_a_file_gives_the_frames_that_were_written(suffix: str, count: int, tmp_path: Path) -> None:
    written = video_sets.make_frames(0, count)
    path = video_sets.write_video(tmp_path / f"v{suffix}", written)
    wanted = [written[number] for number in frames.choose_all(count, (1, 8, 16))]
    found = frames.VideoFile("v", path, (1, 8, 16)).read_frames()
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    (tmp_path / "tar").write_bytes(b"head" + path.read_bytes() + b"tail")
    place = Stretch(tmp_path / "tar", 4, path.stat().st_size)
    inside = frames.VideoFile("v", place, (1, 8, 16)).read_frames()
    assert all(np.array_equal(a, b) for a, b in zip(inside, wanted, strict=True))


@pytest.mark.parametrize("damage", ["none at all", "half", "sound alone"])
def test_a_video_that_does_not_decode_says_so(damage: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV reads video files: the `video` extra")
    path = video_sets.write_video(tmp_path / "v.avi", video_sets.make_frames(0, 40))
    if damage == "none at all":
        path.write_bytes(b"no video" * 100)
    if damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if damage == "sound alone":
        path = tmp_path / "sound.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000)
            stream.layout = "mono"
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
    with pytest.raises(SampleError) as caught:
        frames.VideoFile("v", path, (8,)).read_frames()
    assert "\n" not in str(caught.value)


def test_without_pyav_a_file_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="pip install"):
        frames.VideoFile("v.mp4", tmp_path / "v.mp4", (1,)).read_frames()


def test_frames_that_are_pictures_come_in_their_order_and_a_broken_one_is_named() -> None:
    written = video_sets.make_frames(0)
    pictures = tuple(Picture(str(number), video_sets.encode_png(frame)) for number, frame in enumerate(written))
    found = frames.Pictures("v", pictures, (1, 2)).read_frames()
    assert all(np.array_equal(found[at], written[number]) for at, number in enumerate((5, 2, 7)))
    with pytest.raises(SampleError, match="its frame number 0"):
        frames.Pictures("v", (Picture("number 0", b"none"),), (1,)).read_frames()
