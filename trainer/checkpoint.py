"""Checkpoints: whole or absent, the newest found by one small file, resumable on another number of GPUs.

    checkpoints/step-00001000/      DeepSpeed's files, then trainer.json, written last: without it the folder is none
    checkpoints/latest              the newest whole checkpoint's name, replaced atomically

trainer.json says what the run was and how far it came, and holds the loader's state, one for all ranks. Random
numbers need no state: each forward is seeded from (seed, step, rank, micro-batch), and the schedule is a function of
the step.

torch and deepspeed are imported where they are used: what a checkpoint says is read before the environment that both
read on import is prepared.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import UserError
from curation.settings import from_dict
from trainer.config import CheckpointConfig, Config

META = "trainer.json"
LATEST = "latest"
FOLDERS = "step-" + "[0-9]" * 8


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a checkpoint says about its run. `step` counts finished optimizer steps, skipped ones included."""

    model: str
    image_size: int
    optimizer: str
    precision: str
    zero_stage: int
    world_size: int
    batch_size: int
    seed: int
    teacher: str = ""
    """Of masked image modelling; empty in contrastive training."""
    step: int
    phase: int
    num_skipped: int = 0
    mean_loss: float | None = None
    loader: Any = None
    """`Loader.state_dict()`, the same on every rank."""


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after `step` steps; names sort by step."""
    return f"step-{step:08d}"


def list_whole(folder: Path) -> list[Path]:
    """Finished checkpoints below `folder`, by step."""
    return sorted(path.parent for path in folder.glob(f"{FOLDERS}/{META}"))


def find_newest(folder: Path) -> Path | None:
    """The checkpoint that `latest` names, else the newest whole one, or None."""
    pointer = folder / LATEST
    if pointer.is_file():
        name = pointer.read_bytes().strip().decode("ascii", "replace")
        if fnmatch.fnmatchcase(name, FOLDERS) and (folder / name / META).exists():
            return folder / name
    whole = list_whole(folder)
    return whole[-1] if whole else None


def read_progress(checkpoint: Path) -> Progress:
    """What the checkpoint says of its run. Raises UserError when the folder is no checkpoint of this trainer."""
    try:
        progress = from_dict(Progress, json.loads((checkpoint / META).read_bytes()), META)
    except (OSError, ValueError, RecursionError, UserError) as error:
        raise UserError(
            f"{checkpoint} is no whole checkpoint of this trainer: its {META} cannot be read ({error})."
        ) from error
    return progress


def choose_checkpoint(config: CheckpointConfig, folder: Path) -> Path | None:
    """The checkpoint to go on from, or None for a fresh start. Raises UserError when the wish cannot be met."""
    newest = find_newest(folder)
    if config.resume == "auto":
        return newest
    if config.resume == "never":
        if newest:
            raise UserError(f"{folder} already has {newest.name}: set checkpoint.resume=auto or another folder.")
        return None
    path = Path(config.resume)
    if not (path / META).exists():
        raise UserError(f"There is no checkpoint {path}: name a step-… folder, auto or never.")
    return path


def require_same_run(progress: Progress, config: Config, checkpoint: Path) -> None:
    """Raise UserError when the run cannot go on from a checkpoint of that model and optimizer."""
    wanted = {
        "model": config.model.sized_name,
        "optimizer": config.optim.name,
        "precision": config.train.precision,
        "batch_size": config.train.batch_size,
        "seed": config.train.seed,
        "teacher": config.distill.teacher if config.distill else "",
    }
    for key, value in wanted.items():
        recorded = getattr(progress, key)
        if recorded != value:
            raise UserError(
                f"{checkpoint} is of another run: its {key} is {recorded or 'none'}, this one's {value or 'none'}; "
                "use that one or another folder."
            )


def is_cut_alike(progress: Progress, config: Config, world_size: int) -> bool:
    """Whether the partitions are those of this run, or there are none, so that DeepSpeed itself reads them."""
    stage = config.zero.stage
    return progress.zero_stage == stage and (stage == 0 or progress.world_size == world_size)


class Checkpoints:
    """The folder of one run's checkpoints, from the point of view of one rank."""

    def __init__(self, folder: Path, config: CheckpointConfig, *, rank: int, local_rank: int) -> None:
        self.folder, self.config = folder, config
        self.rank, self.local_rank = rank, local_rank
        self._copying: tuple[threading.Thread, Progress] | None = None
        self._failure = ""

    def save(self, engine: Any, progress: Progress) -> None:
        """Write one checkpoint; every rank calls this. With staging it returns while the files are still copied."""
        self.finish()
        name = checkpoint_name(progress.step)
        staged = Path(self.config.staging, name) if self.config.staging else None
        if self.rank == 0:
            # What an interrupted save left would be read as parts of this checkpoint.
            remove_checkpoint(self.folder / name)
        if staged and self.local_rank == 0:
            remove_checkpoint(staged)
        _barrier()
        engine.save_checkpoint(str((staged or self.folder / name).parent), tag=name, save_latest=False)
        if staged is None:
            self._publish(progress)
            return
        _barrier()
        thread = threading.Thread(target=self._copy, args=(staged,), name=f"copy-{name}", daemon=True)
        self._copying = (thread, progress)
        thread.start()

    def finish(self) -> None:
        """Wait for a staged copy and publish it; every rank calls this.

        Raises:
            UserError: on all ranks, when a node could not copy its files; the checkpoint then does not count.
        """
        if self._copying is None:
            return
        thread, progress = self._copying
        self._copying = None
        thread.join()
        failures = [message for message in _gather_messages(self._failure) if message]
        if failures:
            raise UserError(
                f"{checkpoint_name(progress.step)} could not be copied from {self.config.staging}: {failures[0]}"
            )
        self._publish(progress)

    def _copy(self, staged: Path) -> None:
        # Each node's first rank moves what its ranks wrote; on one node that is everything.
        if self.local_rank != 0:
            return
        try:
            shutil.copytree(staged, self.folder / staged.name, dirs_exist_ok=True)
            shutil.rmtree(staged)
        except (OSError, shutil.Error) as error:
            self._failure = str(error)

    def _publish(self, progress: Progress) -> None:
        """The first rank makes the checkpoint count and removes those that are too old."""
        if self.rank == 0:
            ours = self.folder / checkpoint_name(progress.step)
            replace_text(ours / META, json.dumps(dataclasses.asdict(progress)))
            replace_text(self.folder / LATEST, ours.name)
            # By age, not by step: a run that went back to an earlier step must not lose what it has just saved.
            others = sorted(
                (path for path in list_whole(self.folder) if path != ours),
                key=lambda path: (path / META).stat().st_mtime_ns,
            )
            for old in others[: max(0, len(others) + 1 - self.config.keep_last)]:
                remove_checkpoint(old)
        _barrier()


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint, whole or not."""
    # First the file that makes it one: a removal that is cut short leaves no half checkpoint.
    (checkpoint / META).unlink(missing_ok=True)
    if checkpoint.exists():
        shutil.rmtree(checkpoint)


def restore_engine(engine: Any, checkpoint: Path, progress: Progress, *, cut_alike: bool) -> None:
    """Load weights, moments and loss scale into the engine; every rank calls this.

    Rates and decays stay those of the configuration, although DeepSpeed 0.19 loads them from the checkpoint.
    """
    if not cut_alike:
        from trainer.partitions import restore_partitions  # imports torch, which a dry run does without

        restore_partitions(engine, checkpoint, progress.zero_stage, progress.world_size)
        return
    from trainer.zero_files import read_live_file

    # DeepSpeed's own reader would run whatever the files name.
    engine.checkpoint_engine.load = lambda path, map_location=None: read_live_file(Path(path))
    optimizer = engine.basic_optimizer
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    loaded, _ = engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name, load_lr_scheduler_states=False)
    if loaded is None:
        raise UserError(f"DeepSpeed found nothing to load in {checkpoint}.")
    for group, ours in zip(optimizer.param_groups, groups, strict=True):
        group.update(ours)


def gather_weights(engine: Any, dtype: str) -> dict[str, Any]:
    """The whole model from its fp32 masters, name → CPU tensor on the first rank and empty elsewhere.

    Parameters are gathered one by one, so no GPU holds the model; every rank calls this.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    from trainer.optim.masters import MasterWeights
    from trainer.precision import DTYPES

    target = DTYPES[dtype]
    first = engine.global_rank == 0
    result = {}
    masters = engine.optimizer.masters() if isinstance(engine.optimizer, MasterWeights) else {}
    for name, parameter in engine.module.named_parameters():
        value = masters.get(name)
        if value is None and parameter.requires_grad:
            value = safe_get_full_fp32_param(parameter)
        value = _gather_value(parameter) if value is None else value
        if first:
            result[name] = value.detach().to("cpu", target).clone()
    return result


def _gather_value(parameter: Any) -> Any:
    """A parameter that no optimizer has a master of: a frozen one."""
    if not hasattr(parameter, "ds_id"):
        return parameter
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that readers see the old text or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _gather_messages(ours: str) -> list[str]:
    import torch.distributed as dist

    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, ours)
    return gathered


def _barrier() -> None:
    import torch.distributed as dist

    dist.barrier()
