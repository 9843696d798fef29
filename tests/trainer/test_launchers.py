"""The launchers that users type, on packed shards: two ranks train on a WHERE, and a job that is told to end saves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curation.schema import ROOT_FORMAT
from curation.storage import Root
from tests.support import small_root
from tests.support.ports import free_port
from tests.support.trainer.ranks import PROJECT, launch
from tests.support.trainer.toy import losses

BIN = Path(sys.executable).parent


def _root(folder: Path) -> str:
    made = small_root.build(Root(str(folder)))
    made.root.publish_json("root.json", {"format": ROOT_FORMAT, "version": "0"})
    small_root.pack(made, sorted(made.images))
    return str(folder)


def _start(launcher: list[str], root: str, folder: Path, *overrides: str) -> subprocess.Popen[str]:
    sets = [f"data.root={root}", f"folder={folder}", "train.batch_size=8", "eval.retrieval=false", *overrides]
    command = [*launcher, "trainer.train", "--config", "debug", *(p for s in sets for p in ("--set", s))]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "DS_ACCELERATOR": "cpu"}
    return subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


COLLECTIVE_IN_FLIGHT = """
import atexit, sys, threading, time, torch
from torch import distributed as dist
from curation.command import end_process

def late():
    time.sleep(0.2)
    sys.stdout.write("thread ")

atexit.register(sys.stdout.write, "handler ")
dist.init_process_group("gloo")
held = dist.group.WORLD  # as DeepSpeed does
dist.barrier()
threading.Thread(target=late).start()
for _ in range(50):
    dist.all_reduce(torch.ones(2_000_000), async_op=True)
dist.destroy_process_group()
end_process(3)
"""


def test_a_collective_in_flight_does_not_change_the_exit_status() -> None:
    output = launch(2, [sys.executable, "-c", COLLECTIVE_IN_FLIGHT], status=3)
    assert output.endswith("thread handler ")


@pytest.mark.slow
def test_deepspeeds_launcher_trains_on_a_where(tmp_path: Path) -> None:
    launcher = ["deepspeed", "--num_gpus", "2", "--master_port", str(free_port()), "--module"]
    where = "data.where=source = 'laion'"
    more = ["data.verify=true", "data.captions={caption = 1, uid = 2}", f"data.cache={tmp_path / 'cache'}"]
    process = _start(launcher, _root(tmp_path / "root"), tmp_path / "run", where, "phases.0.samples=24", *more)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert sorted(losses(tmp_path / "run")) == [1, 2, 3] and (tmp_path / "run" / "model.safetensors").exists()
    meta = json.loads((tmp_path / "run" / "checkpoints" / "step-00000003" / "trainer.json").read_text())
    # 16 of the 32 packed samples are laion's, so that three steps of 8 lie in the second epoch.
    assert (meta["world_size"], meta["loader"]["order"]["epoch_samples"]) == (2, 16)


@pytest.mark.slow
def test_distillation_reads_a_where_and_starts_contrastive_training(tmp_path: Path) -> None:
    root, mim = _root(tmp_path / "root"), tmp_path / "mim"
    command = [sys.executable, "-m", "trainer.distill", "--config", "mim-debug"]
    sets = [f"data.root={root}", f"folder={mim}", "train.batch_size=8", "data.where=source = 'coyo'"]
    command += [part for override in (*sets, "phases.0.samples=24") for part in ("--set", override)]
    output = launch(1, command)
    assert sorted(losses(mim)) == [1, 2, 3], output
    meta = json.loads((mim / "checkpoints" / "step-00000003" / "trainer.json").read_text())
    assert (meta["teacher"], meta["loader"]["order"]["epoch_samples"]) == ("debug", 16)
    process = _start(
        [sys.executable, "-m"], root, tmp_path / "clip", "phases.0.samples=8",
        f"model.image_weights={mim / 'model.safetensors'}",
    )  # fmt: skip
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0 and sorted(losses(tmp_path / "clip")) == [1], output
    # A run of the one kind does not go on as the other.
    process = _start([sys.executable, "-m"], root, mim, "phases.0.samples=24")
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 2 and "its teacher is debug, this one's none" in output


@pytest.mark.slow
def test_a_sigterm_to_the_whole_job_saves(tmp_path: Path) -> None:
    launcher = ["torchrun", "--nproc-per-node", "2", "--master-port", str(free_port()), "-m"]
    folder = tmp_path / "run"
    process = _start(launcher, _root(tmp_path / "root"), folder, "phases.0.samples=8000000", "data.num_workers=1")
    try:
        _wait_for(lambda: (folder / "metrics.jsonl").exists() and len(losses(folder)) > 3)
        # As schedulers do it: ranks and the loader's worker processes alike.
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    last = max(losses(folder))
    assert (folder / "checkpoints" / "latest").read_text() == f"step-{last:08d}"


def _wait_for(condition: object, timeout_s: float = 600) -> None:
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
