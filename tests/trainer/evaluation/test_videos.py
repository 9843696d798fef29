"""Sets of videos: four layouts hold the same videos, and what is missing is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from tests.support.trainer import video_sets
from trainer.evaluation import videos
from trainer.evaluation.frames import FrameSet

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folders": video_sets.write_folders,
    "ucf": video_sets.write_ucf,
    "kinetics": video_sets.write_kinetics,
    "tar of files": partial(video_sets.write_tars, as_files=True),
    "tar of frames": partial(video_sets.write_tars, as_files=False),
}


def read(folder: Path, name: str = "mine") -> FrameSet:
    return videos.read_videos(name, folder, ["a video of {}."], (1, 4))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_videos(layout: str, tmp_path: Path) -> None:
    found = read(LAYOUTS[layout](tmp_path / "set"))
    assert found.labels == (0, 0, 1, 1)
    names = ("ApplyLipstick", "Archery") if layout == "folders" else ("apply lipstick", "archery")
    assert found.names == names and found.prompts[1] == [f"a video of {names[1]}."]
    for number, item in enumerate(found.items):
        written = video_sets.make_frames(number)
        read_frames = item.read_frames()
        assert all(np.array_equal(read_frames[at], written[n]) for at, n in enumerate((5, 1, 3, 6, 8)))


@pytest.mark.parametrize(
    ("layout", "damage", "says"),
    [
        ("folders", "ApplyLipstick/v1/0004.png", "has no frame 4, between 1 and 10"),
        ("ucf", "UCF-101/Archery/v2.avi", "1 of 4 videos of"),
        ("kinetics", "val/archery/id-3_000003_000013.mkv", "1 of 4 videos of"),
    ],
)
def test_a_frame_or_video_that_is_missing_is_one_sentence(layout: str, damage: str, says: str, tmp_path: Path) -> None:
    folder = LAYOUTS[layout](tmp_path / "set")
    (folder / damage).unlink()
    with pytest.raises(UserError, match=says) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_a_class_file_of_another_length_is_one_sentence(tmp_path: Path) -> None:
    folder = video_sets.write_ucf(tmp_path / "set")
    (folder / "ucfTrainTestlist" / "classInd.txt").write_text("1 ApplyLipstick\n")
    with pytest.raises(UserError, match="names 1 classes, and .* has 2 sub-folders"):
        read(folder)
    folder = video_sets.write_folders(tmp_path / "other")
    with pytest.raises(UserError, match="has 2 classes, and K400 has 400: correct its class file"):
        read(folder, "K400")
    folder = video_sets.write_tars(tmp_path / "tars", as_files=False)
    (folder / "classnames.txt").write_text("apply lipstick\n")
    with pytest.raises(UserError, match=r"has class '1', but classnames\.txt names 1"):
        read(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("label,id\na,b\n", "no rows with label, youtube_id"),
        ("", "no rows with label"),
        ("label,youtube_id,time_start,time_end\na,b,soon,later\n", "Line 2 of .* has no time in seconds"),
        ("label,youtube_id,time_start,time_end\na,b\n", "Line 2 of .* has no time in seconds"),
    ],
)
def test_a_list_of_kinetics_that_is_none_is_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text(text)
    with pytest.raises(UserError, match=says):
        read(tmp_path)


def test_frames_without_place_are_refused(tmp_path: Path) -> None:
    folder = video_sets.write_folders(tmp_path / "set")
    (folder / "Archery" / "v3" / "x0001.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="are one frame"):
        read(folder)
    (folder / "Archery" / "v3" / "x0001.jpg").rename(folder / "Archery" / "v3" / "cover.jpg")
    with pytest.raises(UserError, match="has no number"):
        read(folder)
    for file in (folder / "Archery" / "v3").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="has no frames"):
        read(folder)


def test_other_folders_than_of_videos_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        read(tmp_path / "absent")
    (tmp_path / "one").mkdir()
    with pytest.raises(UserError, match="needs two classes of videos"):
        read(tmp_path)
    (tmp_path / "two").mkdir()
    with pytest.raises(UserError, match="has no videos"):
        read(tmp_path)
