"""The training loop: phases, steps, skipping, checkpoints and the log, whatever the objective is."""

from __future__ import annotations

import json
import logging
import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from curation.errors import UserError
from curation.progress import bar
from trainer import checkpoint, optim, zero
from trainer.checkpoint import Checkpoints, Progress
from trainer.config import Config, PhaseConfig
from trainer.feed import Batch, Feed
from trainer.launch import Rank
from trainer.metrics import Metrics, StepRecord, memory_gb, peak_tflops

logger = logging.getLogger("trainer")

MEAN_LOSS_MOMENTUM = 0.98
"""Of the running mean that spikes are measured against."""


class Objective(Protocol):
    """What is trained: a module, its parameters' places, and one step of it."""

    def build(self, image_size: int | None, weights: Path | None) -> nn.Module:
        """The module to train; `weights` is a consolidated file of this run's earlier resolution."""

    def parameter_groups(self, module: Any) -> list[dict[str, Any]]:
        """For the optimizer."""

    def set_patch_drop(self, module: Any, share: float) -> None:
        """From now on."""

    def step(
        self, engine: Any, batches: list[Batch], seed: Callable[[int], None], is_sound: Callable[[Tensor], bool]
    ) -> tuple[Tensor, Tensor | None]:
        """Forward and backward; this rank's loss and, where there is one, the inverse temperature."""

    def forward_flops(self, image_size: int | None, patch_drop: float) -> float:
        """Of one sample."""

    def export(self, tensors: dict[str, Tensor], image_size: int | None, path: Path) -> None:
        """Write the consolidated tensors as one safetensors file, on the first rank."""


class Loop:
    """One run on one rank, from the checkpoint it resumes to the last phase."""

    def __init__(
        self,
        config: Config,
        objective: Objective,
        make_loader: Callable[[PhaseConfig], Any],
        *,
        rank: Rank,
        device: torch.device,
        resume: Path | None,
    ) -> None:
        self.config, self.objective, self.make_loader = config, objective, make_loader
        self.rank, self.device = rank, device
        self.folder = Path(config.folder)
        self.num_micro_batches = config.train.num_micro_batches(rank.world_size)
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints", config.checkpoint, rank=rank.rank, local_rank=rank.local_rank
        )
        self.metrics = Metrics(config, self.folder, is_first=rank.is_first)
        self.resumed = checkpoint.read_progress(resume) if resume else None
        self.step = self.resumed.step if self.resumed else 0
        self.num_skipped = self.resumed.num_skipped if self.resumed else 0
        self.mean_loss = self.resumed.mean_loss if self.resumed else None
        self.skipped_in_a_row = 0
        self.stopping = False
        # A checkpoint at the end of a phase has that phase's resolution, not the next one's.
        self.image_size = (
            (self.resumed.image_size or None) if self.resumed else self._image_size(config.phases[0])
        )
        self.engine = self._engine(resume)

    def run(self) -> bool:
        """Train to the end, or to a SIGTERM; saves either way. Returns whether the end was reached."""
        with _on_sigterm(self._stop), bar(self.config.total_steps, "train", "step") as progress:
            progress.update(self.step)
            end = 0
            for index, (phase, steps) in enumerate(
                zip(self.config.phases, self.config.phase_steps(), strict=True)
            ):
                begin, end = end, end + steps
                if self.step < end and not self.stopping:
                    self._run_phase(index, phase, begin, end, progress)
        self.checkpoints.finish()
        return not self.stopping

    def close(self) -> None:
        """Close the log."""
        self.metrics.close()

    def save_weights(self, path: Path) -> None:
        """Write the consolidated model; every rank calls this."""
        tensors = checkpoint.consolidated(self.engine, self.config.checkpoint.export_dtype)
        if self.rank.is_first:
            self.objective.export(tensors, self.image_size, path)
        dist.barrier()

    def _stop(self) -> None:
        self.stopping = True

    def _image_size(self, phase: PhaseConfig) -> int | None:
        return phase.image_size or self.config.model.image_size

    def _engine(self, resume: Path | None, weights: Path | None = None) -> Any:
        """Build the model for the current resolution and give it to DeepSpeed."""
        universal = False
        if resume and self.resumed:
            universal = checkpoint.needs_universal(self.resumed, self.config, self.rank.world_size)
            if universal:
                if self.rank.is_first:
                    checkpoint.to_universal(resume)
                dist.barrier()
                resume = resume.with_name(f"{resume.name}-universal")
        on_gpu = self.device.type == "cuda"
        settings = zero.zero_config(self.config, self.rank.world_size, on_gpu=on_gpu, load_universal=universal)
        if self.rank.is_first:
            logger.info("deepspeed configuration: %s", json.dumps(settings))
        torch.manual_seed(self.config.train.seed)
        with zero.sharded_build(self.config, settings):
            module = self.objective.build(self.image_size, weights)
        optimizer = optim.build(self.objective.parameter_groups(module), self.config.optim)
        engine = zero.initialize(module, optimizer, settings)
        if resume:
            checkpoint.restore(engine, resume)
            logger.info("resumed %s at step %d", resume, self.step)
        return engine

    def _run_phase(self, index: int, phase: PhaseConfig, begin: int, end: int, progress: Any) -> None:
        self._set_resolution(phase)
        self.objective.set_patch_drop(self.engine.module, phase.patch_drop)
        loader = self.make_loader(phase)
        if self.resumed and self.resumed.phase == index and self.step > begin:
            loader.load_state_dict(_state_of(self.resumed, self.rank))
        feed = Feed(loader, self.device, trim_tokens=not self.config.model.compile)
        self.engine.train()
        every = self.config.checkpoint.every_steps
        while self.step < end and not self.stopping:
            self._step(index, phase, feed)
            progress.update()
            due = self.step == end or self.stopping or (every and self.step % every == 0)
            if due:
                self._save(index, self.step - begin, loader)

    def _set_resolution(self, phase: PhaseConfig) -> None:
        """Build the model anew from its own weights when the phase has another image size."""
        wanted = self._image_size(phase)
        if wanted == self.image_size:
            return
        weights = self.folder / f"before-{wanted}.safetensors"
        self.save_weights(weights)
        self.engine.destroy()
        self.image_size = wanted
        self.engine = self._engine(None, weights)

    def _save(self, phase: int, phase_step: int, loader: Any) -> None:
        config = self.config
        progress = Progress(
            model=config.model.name,
            image_size=self.image_size or 0,
            optimizer=config.optim.name,
            precision=config.train.precision,
            zero_stage=config.zero.stage,
            world_size=self.rank.world_size,
            seed=config.train.seed,
            step=self.step,
            phase=phase,
            phase_step=phase_step,
            num_skipped=self.num_skipped,
            mean_loss=self.mean_loss,
            loaders=(loader.state_dict(),),
        )
        self.checkpoints.save(self.engine, progress)

    def _step(self, phase_index: int, phase: PhaseConfig, feed: Feed) -> None:
        start = time.perf_counter()
        feed.waited_s = 0.0
        factor = optim.warmup_cosine(
            self.step,
            warmup_steps=self.config.warmup_steps,
            total_steps=self.config.total_steps,
            final_ratio=self.config.optim.final_lr_ratio,
        )
        rate = optim.set_learning_rate(self.engine.optimizer, factor)
        batches = feed.take(self.num_micro_batches)
        waited_s = feed.waited_s
        agreed: dict[str, float] = {}

        def is_sound(loss: Tensor) -> bool:
            agreed.update(self._agree(loss, waited_s))
            return self._is_sound(agreed["loss"])

        _, scale = self.objective.step(self.engine, batches, self._seed, is_sound)
        applied = self._is_sound(agreed["loss"]) and self._apply()
        self.step += 1
        self._count(applied, agreed["loss"])
        grad_norm = self._grad_norm() if applied else None
        elapsed_s = time.perf_counter() - start
        self._record(phase_index, phase, agreed, scale, rate, grad_norm, applied, elapsed_s)
        if self.skipped_in_a_row >= self.config.train.max_skipped_steps:
            raise UserError(
                f"Training stopped: {self.skipped_in_a_row} steps in a row were skipped for a non-finite or spiking "
                f"loss; lower optim.*.lr or set optim.clip_norm and resume from {self.checkpoints.folder}."
            )

    def _agree(self, loss: Tensor, waited_s: float) -> dict[str, float]:
        """One exchange a step: the mean loss, whether any rank was told to stop, the longest wait for data."""
        mine = torch.tensor([float(self.stopping), waited_s], device=loss.device, dtype=torch.float32)
        total = loss.detach().float().reshape(1).clone()
        dist.all_reduce(total)
        dist.all_reduce(mine, op=dist.ReduceOp.MAX)
        stop, waited = mine.tolist()
        self.stopping = bool(stop)
        return {"loss": total.item() / self.rank.world_size, "waited_s": waited}

    def _is_sound(self, loss: float) -> bool:
        factor = self.config.train.spike_factor
        if not math.isfinite(loss):
            return False
        return not factor or self.mean_loss is None or loss <= factor * self.mean_loss

    def _apply(self) -> bool:
        """The optimizer's step. False when the gradients were not finite and it was left out."""
        if hasattr(self.engine.optimizer, "overflow"):
            self.engine.step()
            return bool(self.engine.was_step_applied())
        # Stage 0 in fp32 is torch's own optimizer, which would write the NaN into the weights.
        norm = nn.utils.get_total_norm([p.grad for p in self.engine.module.parameters() if p.grad is not None])
        self._plain_norm = float(norm)
        if not math.isfinite(self._plain_norm):
            self.engine.zero_grad()
            return False
        self.engine.step()
        return True

    def _grad_norm(self) -> float | None:
        norm = self.engine.get_global_grad_norm()
        if norm is None:
            norm = getattr(self, "_plain_norm", None)
        return None if norm is None else float(norm)

    def _count(self, applied: bool, loss: float) -> None:
        self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1
        self.num_skipped += not applied
        if applied:
            old = loss if self.mean_loss is None else self.mean_loss
            self.mean_loss = MEAN_LOSS_MOMENTUM * old + (1 - MEAN_LOSS_MOMENTUM) * loss

    def _seed(self, micro_batch: int) -> None:
        """Random numbers of one forward, a function of where it stands in the run and of nothing else."""
        place = (self.config.train.seed, self.step, self.rank.rank, micro_batch)
        torch.manual_seed(random.Random(repr(place)).getrandbits(63))

    def _record(
        self,
        phase_index: int,
        phase: PhaseConfig,
        agreed: dict[str, float],
        scale: Tensor | None,
        rate: float,
        grad_norm: float | None,
        applied: bool,
        elapsed_s: float,
    ) -> None:
        batch_size, world_size = self.config.train.batch_size, self.rank.world_size
        # Forward, and twice that for the backward pass; what is computed again to save memory does not count.
        flops = 3 * self.objective.forward_flops(self.image_size, phase.patch_drop) * batch_size / world_size
        tflops, peak = flops / elapsed_s / 1e12, peak_tflops(self.device)
        self.metrics.write(
            StepRecord(
                step=self.step,
                samples=self.step * batch_size,
                phase=phase_index,
                loss=agreed["loss"],
                lr=rate,
                temperature=None if scale is None else 1 / scale.item(),
                grad_norm=grad_norm,
                applied=applied,
                num_skipped=self.num_skipped,
                step_time_s=elapsed_s,
                samples_per_s=batch_size / elapsed_s,
                samples_per_s_per_gpu=batch_size / elapsed_s / world_size,
                tflops_per_gpu=tflops,
                mfu=tflops / peak if peak else None,
                memory_gb=memory_gb(self.device),
                data_wait_share=min(1.0, agreed["waited_s"] / elapsed_s),
            )
        )


def _state_of(progress: Progress, rank: Rank) -> Any:
    """The loader state this rank goes on from: its own, or any rank's when the world has another size."""
    if len(progress.loaders) == rank.world_size:
        return progress.loaders[rank.rank]
    return progress.loaders[0]


@contextmanager
def _on_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM, which slurm and Kubernetes send ahead of a kill."""
    before = signal.signal(signal.SIGTERM, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
