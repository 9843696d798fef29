"""Checkpoints are whole or absent, whatever is cut short; DeepSpeed's part is played by a small fake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curation.errors import UserError
from trainer import checkpoint, config
from trainer.checkpoint import Checkpoints, Progress
from trainer.config import CheckpointConfig

PROGRESS = Progress(
    model="debug", image_size=0, optimizer="adamw", precision="fp32", zero_stage=1, world_size=2, batch_size=48, seed=0,
    step=1, phase=0, loader={"position": 7},
)  # fmt: skip


class Engine:
    """Writes one file a rank; fails where told to."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        """As DeepSpeed's."""
        assert not save_latest
        place = Path(folder, tag)
        place.mkdir(parents=True, exist_ok=True)
        (place / "weights").write_text(tag)
        if self.fails:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_barrier", lambda: None)
    monkeypatch.setattr(checkpoint, "_gather_messages", lambda ours: [ours])


def _saver(folder: Path, **settings: Any) -> Checkpoints:
    return Checkpoints(folder, CheckpointConfig(**settings), rank=0, local_rank=0)


def _save(folder: Path, *steps: int, **settings: Any) -> None:
    saver = _saver(folder, **settings)
    for step in steps:
        saver.save(Engine(), replace(PROGRESS, step=step))
    saver.finish()


def test_what_was_saved_is_what_is_read(tmp_path: Path) -> None:
    _save(tmp_path, 5)
    found = checkpoint.find_newest(tmp_path)
    assert found == tmp_path / "step-00000005"
    assert checkpoint.read_progress(found) == replace(PROGRESS, step=5)


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2, 3, 4, keep_last=2)
    assert [path.name for path in checkpoint.list_whole(tmp_path)] == ["step-00000003", "step-00000004"]
    assert (tmp_path / "latest").read_text() == "step-00000004"


def test_going_back_keeps_what_is_saved_then(tmp_path: Path) -> None:
    _save(tmp_path, 10, 20, keep_last=2)
    _save(tmp_path, 12, keep_last=1)
    assert checkpoint.find_newest(tmp_path) == tmp_path / "step-00000012"
    assert len(checkpoint.list_whole(tmp_path)) == 1


def test_an_interrupted_save_is_none_and_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt):
        _saver(tmp_path).save(Engine(fails=True), replace(PROGRESS, step=2))
    (tmp_path / "step-00000002" / "of-another-world-size").touch()
    assert checkpoint.find_newest(tmp_path) == tmp_path / "step-00000001"
    _save(tmp_path, 2)
    assert checkpoint.find_newest(tmp_path) == tmp_path / "step-00000002"
    assert not (tmp_path / "step-00000002" / "of-another-world-size").exists()


def test_a_removal_cut_short_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1, 2)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.remove_checkpoint(tmp_path / "step-00000002")
    assert checkpoint.find_newest(tmp_path) == tmp_path / "step-00000001"


def test_a_staged_save_counts_once_it_is_copied(tmp_path: Path) -> None:
    staging, folder = tmp_path / "fast", tmp_path / "slow"
    saver = _saver(folder, staging=str(staging))
    saver.save(Engine(), replace(PROGRESS, step=1))
    assert checkpoint.find_newest(folder) is None
    saver.finish()
    assert checkpoint.find_newest(folder) == folder / "step-00000001"
    assert (folder / "step-00000001" / "weights").exists() and not any(staging.iterdir())


def test_a_failed_copy_is_told_and_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "slow"
    folder.write_text("a file where the folder should be")
    saver = _saver(folder, staging=str(tmp_path / "fast"))
    with pytest.raises((UserError, OSError), match="could not be copied|Not a directory"):
        saver.save(Engine(), replace(PROGRESS, step=1))
        saver.finish()


def test_resume_wishes(tmp_path: Path) -> None:
    assert checkpoint.choose_checkpoint(CheckpointConfig(resume="auto"), tmp_path) is None
    assert checkpoint.choose_checkpoint(CheckpointConfig(resume="never"), tmp_path) is None
    with pytest.raises(UserError, match="There is no checkpoint"):
        checkpoint.choose_checkpoint(CheckpointConfig(resume=str(tmp_path / "x")), tmp_path)
    _save(tmp_path, 3)
    assert checkpoint.choose_checkpoint(CheckpointConfig(resume="auto"), tmp_path) == tmp_path / "step-00000003"
    with pytest.raises(UserError, match="already has step-00000003"):
        checkpoint.choose_checkpoint(CheckpointConfig(resume="never"), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "eva02-b-16"}, "its model is eva02-b-16, this one's debug"),
        ({"optimizer": "lion"}, "its optimizer is lion"),
        ({"batch_size": 96}, "its batch_size is 96"),
        ({"precision": "bf16"}, "its precision is bf16"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        checkpoint.require_same_run(replace(PROGRESS, **change), config.load_config("debug"), tmp_path)


def test_deepspeed_reads_partitions_of_the_same_ranks_and_stage_only() -> None:
    settings = config.load_config("debug")
    assert checkpoint.is_cut_alike(PROGRESS, settings, 2)
    assert not checkpoint.is_cut_alike(PROGRESS, settings, 1)
    assert not checkpoint.is_cut_alike(PROGRESS, config.load_config("debug", ["zero.stage=2"]), 2)
    unsharded = config.load_config("debug", ["zero.stage=0"])
    assert not checkpoint.is_cut_alike(PROGRESS, unsharded, 2)
    assert checkpoint.is_cut_alike(replace(PROGRESS, zero_stage=0), unsharded, 1)
    assert not checkpoint.is_cut_alike(replace(PROGRESS, zero_stage=0), settings, 2)


def test_a_damaged_meta_file_is_told(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    (tmp_path / "step-00000001" / "trainer.json").write_text('{"model": "debug"')
    with pytest.raises(UserError, match="no whole checkpoint"):
        checkpoint.read_progress(tmp_path / "step-00000001")
