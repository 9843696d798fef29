"""Chains of stages: all are checked before the first step, finished ones are skipped, a kill loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.storage import Root
from tests.support.trainer import roots
from tests.support.trainer.ranks import launch
from tests.support.trainer.toy_chain import TEACHER_AND_STUDENT
from trainer import chain
from trainer.chain_config import Stage, load_chain
from trainer.launch import Rank

STAGES = f"""
{TEACHER_AND_STUDENT}
[[stages]]
name = "clip"
recipe = "debug"
image_from = "mim"
text_from = "teacher"
"""
SMALL = ["train.batch_size=16", "phases.0.samples=48", "eval.retrieval=false", "optim.warmup_steps=1"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    roots.packed(Root(str(folder)), 64, pictures=True)
    return folder


def load(folder: Path, root: Path, text: str = STAGES, *overrides: str) -> list[Stage]:
    file = folder / "chain.toml"
    file.write_text(f"folder = '{folder / 'run'}'\n{text}")
    return load_chain(file, [*SMALL, f"data.root={root}", *overrides])


def finish(stage: Stage, stages: list[Stage], data: bytes) -> None:
    stage.weights.parent.mkdir(parents=True, exist_ok=True)
    stage.weights.write_bytes(data)
    chain.record_finished(stage, stages)


def test_later_stages_are_checked_against_weights_that_are_still_to_be_trained(tmp_path: Path, packed: Path) -> None:
    stages = load(tmp_path, packed)
    chain.check_stages(stages, stages, Rank())
    assert not (tmp_path / "run").exists()


LARGER = 'set = {model = {name = "eva02-b-16"}}'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('text_from = "teacher"', LARGER, "Stage clip: .*of another model"),
        ('image_from = "mim"\ntext_from = "teacher"', f'from = "teacher"\n{LARGER}', "Stage clip: .*of another model"),
        (
            'teacher_from = "teacher"',
            'teacher_from = "teacher"\nset = {phases = [{samples = 9, patch_drop = 0.5}]}',
            "Stage mim: patch_drop",
        ),
        ('text_from = "teacher"', 'set = {data = {where = "score >"}}', "Stage clip: "),
        ('text_from = "teacher"', 'set = {data = {where = "score > 1e6"}}', "Stage clip: "),
        (
            'name = "teacher"\nrecipe = "debug"',
            'name = "teacher"\nweights = "none.pt"',
            "Stage teacher: There is no checkpoint at none.pt",
        ),
    ],
)
def test_a_last_stage_that_cannot_work_is_told_before_the_first(
    tmp_path: Path, packed: Path, old: str, new: str, said: str
) -> None:
    stages = load(tmp_path, packed, STAGES.replace(old, new))
    with pytest.raises(UserError, match=said):
        chain.run_chain(stages, Rank())
    assert not (tmp_path / "run").exists()


def test_a_stage_is_finished_while_it_would_be_made_of_the_same(tmp_path: Path, packed: Path) -> None:
    stages = load(tmp_path, packed)
    teacher, mim, _ = stages
    assert not chain.is_finished(teacher, stages)
    finish(teacher, stages, b"teacher")
    finish(mim, stages, b"student")
    assert [chain.is_finished(stage, stages) for stage in stages] == [True, True, False]
    assert chain.is_finished(teacher, load(tmp_path, packed, STAGES, "data.num_workers=1"))
    changed = load(tmp_path, packed, STAGES, "train.seed=1")
    with pytest.raises(UserError, match="Stage teacher in .* was finished with other settings: delete that folder"):
        chain.is_finished(changed[0], changed)
    finish(teacher, stages, b"another teacher")
    with pytest.raises(UserError, match="Stage mim in .* was finished with other weights of an earlier stage"):
        chain.is_finished(mim, stages)
    mim.weights.unlink()
    assert not chain.is_finished(mim, stages)


def test_the_table_tells_the_last_record_of_each_step(tmp_path: Path, packed: Path) -> None:
    stages = load(tmp_path, packed)
    stages[0].weights.parent.mkdir(parents=True)
    told = ((1, 9.0), (2, 5.0), (2, 1.0))
    lines = [{"step": s, "samples": 16 * s, "loss": loss, "step_time_s": 36.0} for s, loss in told]
    text = "\n".join(map(json.dumps, [*lines, {"step": 2, "pairs/crop/recall": 0.5}]))
    stages[0].weights.with_name("metrics.jsonl").write_text(f'{text}\n{{"step": 3, "lo')
    first, second = chain.format_table(stages).splitlines()[1:3]
    assert first.split() == ["teacher", "debug", "64", "32", "5.0000", "0.02", "pairs/crop/recall", "0.5"]
    assert second.split()[:3] == ["mim", "debug", "64"]


def command(config: str | Path, root: Path, *more: str) -> list[str]:
    sets = [*SMALL, f"data.root={root}", *more]
    told = [part for override in sets for part in ("--set", override)]
    return [sys.executable, "-m", "trainer.chain", "--config", str(config), *told]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_chain_that_is_killed_goes_on_where_it_was(tmp_path: Path, packed: Path) -> None:
    load(tmp_path, packed)
    order = command(tmp_path / "chain.toml", packed, "checkpoint.every_steps=1", "eval.where=score < 16")
    run = tmp_path / "run"
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(order, env=environment, start_new_session=True)
    while not list((run / "mim" / "checkpoints").glob("*/trainer.json")):
        assert first.poll() is None
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    teacher = (run / "teacher" / "model.safetensors").stat()
    done = subprocess.run(order, env=environment, capture_output=True, text=True, check=True)
    assert (run / "teacher" / "model.safetensors").stat().st_mtime_ns == teacher.st_mtime_ns
    assert "stage teacher" not in done.stderr and "resumed" in done.stderr
    table = done.stdout.splitlines()
    assert [line.split()[0] for line in table] == ["stage", "teacher", "mim", "clip"]
    assert "heldout/loss" in table[2] and "heldout/constant_loss" in table[2]
    again = subprocess.run(order, env=environment, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout and "stage clip" not in again.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_ranks_run_every_stage_of_the_shipped_debug_chain(tmp_path: Path, packed: Path) -> None:
    told = launch(2, command("chain-debug", packed, f"folder={tmp_path / 'run'}"))
    stages = ["clip", "clip-96", "mim", "teacher"]
    assert sorted(path.parent.name for path in (tmp_path / "run").glob("*/stage.json")) == stages
    last = told.splitlines()[-1].split()
    assert last[0] == "clip-96" and last[2:4] == ["96", "960"]
