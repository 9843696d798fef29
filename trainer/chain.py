"""Train several stages, each from what the ones before it ended with, as one run that can be started again.

    python -m trainer.chain --config chain-debug --set data.root=ROOT
    deepspeed --hostfile hosts --module trainer.chain --config chain-eva-clip-18b --set data.root=ROOT
    python -m trainer.chain --config chain-eva-clip-18b --dry-run --num-gpus 360 --gpu H200

All stages are checked before the first step of the first one. Each runs as a process of its own on every rank, in
FOLDER/STAGE; a finished one is not run again, and the same command goes on after whatever ended it. docs/chain.md.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curation.command import run_program
from curation.errors import UserError
from curation.terminal import write_out
from trainer import dry_run, launch
from trainer.chain_config import Stage, load_chain
from trainer.columns import align
from trainer.command import add_shared_arguments, log_to_stderr, run_checked
from trainer.config import Config, load_config
from trainer.launch import Rank
from trainer.metrics import DENSE_BF16_TFLOPS

logger = logging.getLogger("trainer")
RECORD = "stage.json"
"""What a finished stage was made of, beside its weights; written last."""
NUM_LAST_STEPS = 20
"""Over which the table averages the loss."""
_COUNTS = re.compile(r"num_|chance|@(5|10)$|_(low|high)$")
"""What the table leaves out of the measures; metrics.jsonl has all of them."""
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def run_chain(stages: Sequence[Stage], rank: Rank) -> int:
    """Check every stage, train those that are left, and print the table; the exit status of the first that failed.

    Raises:
        UserError: before anything is trained, when a stage cannot work or was finished with other settings.
    """
    left = [stage for stage in stages if not is_finished(stage, stages)]
    check_stages(stages, left, rank)
    with _Runner(rank) as runner:
        for stage in left:
            logger.info("stage %s: %s, in %s", stage.name, stage.module, stage.weights.parent)
            status = runner.run(stage, stages)
            if status or runner.told_to_stop:
                return status
            if rank.is_first:
                record_finished(stage, stages)
    if rank.is_first:
        write_out(format_table(stages))
    return 0


def is_finished(stage: Stage, stages: Sequence[Stage]) -> bool:
    """Whether the stage's weights are there. Raises UserError when they were made of something else than now."""
    if stage.settings is None:
        return True
    record = _read_record(stage)
    if record is None or not stage.weights.exists():
        return False
    wanted = {"settings": stage.content(), "inputs": _input_sums(stage, stages)}
    for key, told in (("settings", "other settings"), ("inputs", "other weights of an earlier stage")):
        if record.get(key) != wanted[key]:
            raise UserError(
                f"Stage {stage.name} in {stage.weights.parent} was finished with {told}: delete that folder to train "
                "it again, or name another folder."
            )
    return True


def record_finished(stage: Stage, stages: Sequence[Stage]) -> None:
    """Write RECORD, by which the stage counts as finished."""
    record = {
        "settings": stage.content(),
        "inputs": _input_sums(stage, stages),
        "weights_sha256": _sum_file(stage.weights),
    }
    temporary = stage.weights.with_name(f".{RECORD}.{os.getpid()}")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, stage.weights.with_name(RECORD))


def _read_record(stage: Stage) -> dict[str, Any] | None:
    try:
        record = json.loads(stage.weights.with_name(RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _input_sums(stage: Stage, stages: Sequence[Stage]) -> dict[str, str]:
    """Setting → sha256 of the weights that it names, "" of a stage that is not finished."""
    by_name = {one.name: one for one in stages}
    sums = {}
    for key, name in stage.inputs.items():
        source = by_name[name]
        if source.settings is None:
            sums[key] = _sum_file(source.weights) if source.weights.is_file() else ""
        else:
            sums[key] = (_read_record(source) or {}).get("weights_sha256", "")
    return sums


def _sum_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_stages(stages: Sequence[Stage], left: Sequence[Stage], rank: Rank) -> None:
    """Check the stages that are left as their own commands would. Raises UserError, which names the stage.

    Weights that do not exist yet are stood in for by files that have their names and shapes and no values.
    """
    with tempfile.TemporaryDirectory(prefix="chain-") as scratch:
        paths = {stage.name: stage.weights for stage in stages}
        for stage in stages:
            try:
                if stage.settings is None:
                    _require_weights(stage)
                elif stage in left:
                    settings = load_config(stage.recipe, stage.override_inputs(paths))
                    paths[stage.name] = Path(scratch, f"{stage.name}.safetensors")
                    _prepare(stage, settings, rank).write_outline(paths[stage.name])
            except UserError as error:
                told = str(error).replace(scratch, str(stage.weights.parent.parent))
                raise UserError(f"Stage {stage.name}: {told}") from error


def _require_weights(stage: Stage) -> None:
    from trainer.weight_files import WeightFile  # imports torch, which reads the environment

    WeightFile(stage.weights)


def _prepare(stage: Stage, settings: Config, rank: Rank) -> Any:
    from trainer import distill, train

    command: Any = distill if stage.module == "trainer.distill" else train
    objective, _, _ = command.prepare(settings, rank)
    return objective


class _Runner:
    """Runs stages in child processes; a SIGTERM goes on to the child, and no stage is begun after it."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.told_to_stop = False
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Runner:
        self._before = signal.signal(signal.SIGTERM, self._forward)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def run(self, stage: Stage, stages: Sequence[Stage]) -> int:
        """The stage's exit status."""
        overrides = stage.override_inputs({one.name: one.weights for one in stages})
        command = [sys.executable, "-m", stage.module, "--config", stage.recipe]
        command += [part for override in overrides for part in ("--set", override)]
        number = [one.name for one in stages].index(stage.name)
        # Standard output is the table's.
        self._child = subprocess.Popen(
            command, stdout=sys.stderr.fileno(), env=self._environment(number), preexec_fn=_end_with_parent
        )
        with _ignore_interrupts():
            status = self._child.wait()
        return status if status >= 0 else 128 - status

    def _forward(self, *_: object) -> None:
        self.told_to_stop = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)

    def _environment(self, number: int) -> dict[str, str]:
        """Each stage meets at a port of its own: the one before it may not have left its yet."""
        env = dict(os.environ)
        if self.rank.world_size > 1:
            env["MASTER_PORT"] = str(int(env.get("MASTER_PORT", "29500")) + 1 + number)
            # torchrun's own store has the keys of the process group before.
            env["TORCHELASTIC_USE_AGENT_STORE"] = "False"
        return env


def _end_with_parent() -> None:
    """A chain that is killed leaves no stage behind that would write into the folder of the next attempt."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_KILL_WITH_PARENT, signal.SIGKILL)


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the child too, as a process of the same terminal; its end is what ends the chain."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def format_table(stages: Sequence[Stage]) -> str:
    """One line a stage: model, resolution, samples, mean loss of the last steps, hours, and what was measured."""
    rows = [["stage", "model", "px", "samples", "loss", "hours", "measured"]]
    for stage in stages:
        rows.append(_describe(stage) if stage.settings else [stage.name, "given", "", "", "", "", ""])
    return "\n".join(align(rows)) + "\n"


def _describe(stage: Stage) -> list[str]:
    assert stage.settings is not None
    steps, measured = _read_metrics(stage.weights.with_name("metrics.jsonl"))
    last = [record["loss"] for record in steps[-NUM_LAST_STEPS:] if record["loss"] is not None]
    told = ", ".join(
        f"{name} {value:.4g}" for name, value in measured.items() if value is not None and not _COUNTS.search(name)
    )
    return [
        stage.name,
        stage.settings.model.sized_name,
        str(dry_run.clip_config(stage.settings, stage.settings.phases[-1]).vision.image_size),
        f"{steps[-1]['samples']:,}" if steps else "",
        f"{sum(last) / len(last):.4f}" if last else "",
        f"{sum(record['step_time_s'] for record in steps) / 3600:.3g}",
        told,
    ]


def _read_metrics(file: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The records of steps, the last of each step, and the last of what was measured."""
    steps: dict[int, dict[str, Any]] = {}
    measured: dict[str, float] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # a line that a kill cut
            continue
        if "loss" in record:
            steps[record["step"]] = record
        else:
            measured |= {name: value for name, value in record.items() if name != "step"}
    return [steps[step] for step in sorted(steps)], measured


def describe_chain(stages: Sequence[Stage], num_gpus: int, gpu: str) -> str:
    """The dry run of every stage. Raises UserError, which names the stage."""
    parts = []
    for stage in stages:
        try:
            told = dry_run.describe_run(stage.settings, num_gpus, gpu) if stage.settings else "given\n"
        except UserError as error:
            raise UserError(f"Stage {stage.name}: {error}") from error
        parts.append(f"== {stage.name}: {stage.weights}\n{told}")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parse_arguments(argv)
    rank = launch.read_rank()
    statuses = [0]

    def work() -> None:
        stages = load_chain(options.config, options.set)
        if options.dry_run:
            write_out(describe_chain(stages, options.num_gpus, options.gpu))
            return
        launch.prepare_environment(rank)
        log_to_stderr(rank)
        statuses.append(run_chain(stages, rank))

    return run_checked(rank, work) or statuses[-1]


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.chain", description="See docs/chain.md.")
    parser.add_argument("--config", required=True, metavar="FILE", help="a TOML file or a shipped chain's name")
    add_shared_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="print size, memory, speed and days of every stage")
    parser.add_argument("--num-gpus", type=int, default=8, metavar="N", help="of the dry run; 8 by default")
    parser.add_argument("--gpu", default="H100", choices=sorted(DENSE_BF16_TFLOPS), help="of the dry run")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_program(main)
