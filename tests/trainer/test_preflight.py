"""What is checked before a run: that each phase has samples enough, of a root or of clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.errors import UserError
from tests.trainer.data.test_clips import write_clips
from trainer import preflight
from trainer.config import Config, load_config
from trainer.data.clips import ClipLoader
from trainer.launch import Rank


def clip_settings(clips: Path, *more: str) -> Config:
    phases = f"phases=[{{samples = 8, clips = '{clips}', frames = 3}}]"
    return load_config("debug", [phases, "train.batch_size=4", "train.micro_batch_size=2", *more])


def test_a_phase_of_clips_needs_no_root(tmp_path: Path) -> None:
    settings = clip_settings(write_clips(tmp_path / "clips", 5))
    make_loader: Any = preflight.prepare_loaders(settings, Rank())
    loader = make_loader(settings.phases[0])
    assert isinstance(loader, ClipLoader) and (loader.batch_size, loader.frames, len(loader.index)) == (2, 3, 5)
    preflight.check_data(settings, make_loader, None)


def test_fewer_clips_than_a_batch_and_no_clips_are_one_sentence(tmp_path: Path) -> None:
    for settings, says in (
        (
            clip_settings(write_clips(tmp_path / "clips", 3)),
            "Only 3 samples of .* match every clip, less than one batch",
        ),
        (clip_settings(tmp_path / "absent"), "There are no tars of clips"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            preflight.check_data(settings, preflight.prepare_loaders(settings, Rank()), None)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("phases=[{samples = 8, clips = 'x', where = 'true'}]", "where and mix choose rows, not clips"),
        ("phases=[{samples = 8, clips = 'x', frames = 0}]", "frames must be positive"),
        ("phases=[{samples = 8, micro_batch_size = 0}]", "micro_batch_size must be positive"),
        ("model.depth=0", "depth must be positive"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_config("debug", [override])


def test_a_micro_batch_of_a_phase_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    settings = clip_settings(tmp_path, "phases.0.micro_batch_size=3", f"folder={tmp_path}")
    with pytest.raises(UserError, match="does not divide into 1 ranks × micro-batches of 3"):
        preflight.check_settings(settings, Rank())
