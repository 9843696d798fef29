"""The configuration: what is refused, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from trainer import config
from trainer.config import TrainConfig


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_sise=3", "did you mean batch_size"),
        ("nothing.at_all=1", "Unknown key 'nothing'"),
        ("train.precision=fp8", "allowed: 'bf16', 'fp16', 'fp32'"),
        ("train.batch_size=0", "batch_size must be positive"),
        ("train.batch_size=many", "must be of type int"),
        ("train.temperature=-1", "temperature must be positive"),
        ("train.spike_factor=0.5", "spike_factor must be 0 or above 1"),
        ("zero.offload_parameters=true", "needs stage 3"),
        ("zero.stage=4", "stage in"),
        ("optim.betas=[0.9]", "must hold 2 values"),
        ("optim.image.layer_decay=0", "layer_decay lies in"),
        ("phases=[]", "nothing to train"),
        ("phases.0.samples=0", "samples must be positive"),
        ("phases.0.patch_drop=1.0", r"share in \[0, 1\)"),
        ("checkpoint.keep_last=0", "keep_last must be positive"),
        ("checkpoint.every_minutes=-1", "every_minutes must not be negative"),
        ("model.drop_path=1.5", "drop_path is a share"),
    ],
)
def test_a_wrong_value_gets_one_sentence(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        config.load_config("debug", [override])
    assert "\n" not in str(raised.value)


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="eva-clip-18b"):
        config.load_config("eva-clip-19b")


def test_locked_towers_need_weights_and_leave_one_to_train() -> None:
    with pytest.raises(UserError, match="lock_image keeps a tower as its weights are"):
        config.load_config("debug", ["model.lock_image=true", "model.text_weights=b"])
    with pytest.raises(UserError, match="leave no tower to train"):
        config.load_config("debug", ["model.lock_image=true", "model.lock_text=true", "model.weights=a"])
    assert config.load_config("debug", ["model.lock_text=true", "model.text_weights=b"]).model.lock_text


def test_compiled_blocks_and_sharded_parameters_are_refused() -> None:
    with pytest.raises(UserError, match="do not go together"):
        config.load_config("debug", ["model.compile=true", "zero.stage=3"])
    assert config.load_config("debug", ["model.compile=true"]).model.compile


def test_weights_fill_both_towers_or_one_each() -> None:
    with pytest.raises(UserError, match="already fills both towers"):
        config.load_config("debug", ["model.weights=a", "model.text_weights=b"])


def test_a_file_and_its_overrides(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text((config.SHIPPED / "debug.toml").read_text())
    found = config.load_config(file, ["train.batch_size=24", "data.where=width > 10", "data.mix.laion=2"])
    assert (found.train.batch_size, found.data.where, found.data.mix) == (24, "width > 10", {"laion": 2.0})


def test_phases_end_on_whole_steps() -> None:
    found = config.load_config("debug", ["phases=[{samples = 100}, {samples = 1}, {samples = 480}]"])
    assert found.phase_steps() == [2, 1, 10]
    assert found.total_steps == 13


@given(st.integers(1, 64), st.integers(1, 16), st.integers(1, 16))
def test_micro_batches_make_up_the_batch_or_are_refused(world: int, micro: int, parts: int) -> None:
    assert TrainConfig(batch_size=world * micro * parts, micro_batch_size=micro).num_micro_batches(world) == parts
    if world * micro > 1:
        with pytest.raises(UserError, match="does not divide"):
            TrainConfig(batch_size=world * micro * parts + 1, micro_batch_size=micro).num_micro_batches(world)


def test_the_warm_up_can_be_given_in_samples() -> None:
    assert config.load_config("debug", ["optim.warmup_steps=0", "optim.warmup_samples=100"]).warmup_steps == 3


def test_checkpoints_are_saved_every_half_hour_unless_told_otherwise() -> None:
    for name in ("debug", "eva02-l-14", "eva-clip-18b"):
        assert config.load_config(name).checkpoint.every_minutes == 30
