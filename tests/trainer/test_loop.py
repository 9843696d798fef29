"""The loop: the position in the data, the signal to stop, and gradients that are no numbers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curation.errors import UserError
from tests.support.trainer.ranks import launch, run_ranks
from trainer import loop, models, weights
from trainer.config import load_config
from trainer.loop import set_position


@pytest.mark.slow
def test_nan_gradients_and_the_temperature_bound_at_every_stage(tmp_path: Path) -> None:
    what = json.dumps({"folder": str(tmp_path)})
    launch(
        1, [sys.executable, "-m", "tests.support.trainer.ranks", "tests.support.trainer.loop_worker:every_stage", what]
    )


@pytest.mark.slow
def test_a_new_resolution_keeps_the_masters_and_siglips_bias_and_leaves_no_file(tmp_path: Path) -> None:
    run_ranks(2, "tests.support.trainer.loop_worker:change_resolution", folder=str(tmp_path))


@pytest.mark.slow
def test_a_learned_temperature_moves_at_every_step_in_bf16(tmp_path: Path) -> None:
    run_ranks(2, "tests.support.trainer.loop_worker:learn_temperature", folder=str(tmp_path))


@pytest.mark.slow
def test_the_first_update_in_bf16_is_that_of_a_plain_optimizer(tmp_path: Path) -> None:
    run_ranks(1, "tests.support.trainer.loop_worker:first_update", folder=str(tmp_path))


@pytest.mark.slow
def test_the_average_of_the_weights_is_kept_at_every_stage(tmp_path: Path) -> None:
    run_ranks(2, "tests.support.trainer.loop_worker:average", folder=str(tmp_path))


@pytest.mark.slow
def test_measuring_on_the_way_changes_no_loss(tmp_path: Path) -> None:
    run_ranks(2, "tests.support.trainer.loop_worker:measure", folder=str(tmp_path))


@pytest.mark.slow
def test_a_locked_tower_stays_as_it_was(tmp_path: Path) -> None:
    weights.save_model(models.build("debug"), tmp_path / "start.safetensors")
    run_ranks(
        2, "tests.support.trainer.loop_worker:lock", folder=str(tmp_path), weights=str(tmp_path / "start.safetensors")
    )


class Place:
    """A loader that only says where it stands."""

    def __init__(self, order: str) -> None:
        self.order, self.position = order, 0

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `trainer.data.Loader`: a state of another order is refused."""
        if state["order"] != self.order:
            raise UserError("The loader's state belongs to another order of samples.")
        self.position = state["position"]


def test_a_phase_goes_on_where_the_same_order_left_off() -> None:
    loader = Place("laion")
    set_position(loader, {"order": "laion", "position": 7}, required=False)
    assert loader.position == 7


def test_another_order_starts_anew_unless_the_position_is_required() -> None:
    loader = Place("coyo")
    set_position(loader, {"order": "laion", "position": 7}, required=False)
    assert loader.position == 0
    with pytest.raises(UserError, match="another order"):
        set_position(loader, {"order": "laion", "position": 7}, required=True)


def test_measuring_on_the_way_is_due_at_samples_phase_ends_and_a_sigterm_but_not_at_the_end() -> None:
    phases = "phases=[{samples=80}, {samples=80}]"
    settings = load_config("debug", ["train.batch_size=16", phases, "eval.every_samples=48"])
    at = SimpleNamespace(config=settings, measure=print, stopping=False, step=0)

    def due(step: int) -> bool:
        at.step = step
        return loop.Loop._should_measure(at, 5 if step <= 5 else 10)  # type: ignore[arg-type]

    assert [step for step in range(1, 11) if due(step)] == [3, 5, 6, 9]
    at.stopping = True
    assert due(4) and not due(10)
    at.measure = None
    assert not due(3)


def test_a_sigterm_is_told_and_the_handler_before_it_comes_back() -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), loop._on_sigterm(lambda: told.append("stop")):
        signal.raise_signal(signal.SIGTERM)
        assert told == ["stop"]
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_sigterm_ends_a_process_that_python_cannot_interrupt() -> None:
    lines = (
        "import hashlib",
        "from trainer import loop",
        "with loop._on_sigterm(lambda: None):",
        "    print('ready', flush=True)",
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=600)
        assert process.returncode == 128 + signal.SIGTERM and "without saving" in told
    finally:
        process.kill()
