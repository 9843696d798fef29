"""The training loop: phases, steps, skipping, checkpoints and the log, whatever the objective is."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from curation.errors import UserError
from trainer import checkpoint, launch, optim, zero
from trainer.checkpoint import Checkpoints, Progress
from trainer.config import Config, PhaseConfig
from trainer.data.feed import Feed
from trainer.guard import SpikeGuard
from trainer.launch import Rank
from trainer.metrics import Metrics, StepRecord, memory_gb, peak_tflops, training_bar
from trainer.objectives.protocol import Objective
from trainer.partitions import fill_masters, gather_moment

logger = logging.getLogger("trainer")


Measure = Callable[[Config, "Loop", Rank, str], None]
"""Measures the loop's model as it is and writes what it finds to the loop's metrics; every rank calls it."""


def run_loop(
    settings: Config,
    rank: Rank,
    objective: Objective,
    make_loader: Callable[[PhaseConfig], Any],
    resume: Path | None,
    measure: Measure | None = None,
) -> bool:
    """Train to the end, write model.safetensors and call `measure`; False when a SIGTERM ended it early.

    With train.ema_decay model-ema.safetensors is written too, and `measure` called again on those weights. Its last
    argument begins the names of what it measures: "", and "ema/". With eval.every_samples it is called on the way too.
    """
    with launch.process_group(rank) as device:
        loop = Loop(settings, objective, make_loader, rank=rank, device=device, resume=resume, measure=measure)
        finished = loop.run()
        if finished:
            paths = loop.export_weights()
            for prefix, path in paths.items():
                if prefix:
                    loop.take_weights(path)
                if measure is not None:
                    measure(settings, loop, rank, prefix)
        loop.close()
    return finished


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
        measure: Measure | None = None,
    ) -> None:
        self.config, self.objective, self.make_loader = config, objective, make_loader
        self.measure = measure
        self.rank, self.device = rank, device
        self.folder = Path(config.folder)
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints", config.checkpoint, rank=rank.rank, local_rank=rank.local_rank
        )
        self.metrics = Metrics(config, self.folder, is_first=rank.is_first)
        progress = checkpoint.read_progress(resume) if resume else None
        self.step = progress.step if progress else 0
        self.guard = SpikeGuard(config.train)
        if progress:
            self.guard = SpikeGuard(config.train, num_skipped=progress.num_skipped, mean_loss=progress.mean_loss)
        self.loader_state = progress.loader if progress else None
        self.told_to_stop = False
        """Set by a signal, at any moment and on any rank."""
        self.stopping = False
        """What all ranks agreed on in the last step, so that they leave the loop together."""
        self.saved_at = time.monotonic()
        self.save_is_due = False
        """Agreed on in the last step too: checkpoint.every_minutes have passed."""
        # A checkpoint at the end of a phase has that phase's resolution, not the next one's.
        self.image_size = (progress.image_size or None) if progress else self._phase_image_size(config.phases[0])
        self.engine = self._build_engine(resume, progress)

    def run(self) -> bool:
        """Train to the end, or to a SIGTERM; saves either way. Returns whether the end was reached."""
        with _on_sigterm(self._stop), training_bar(self.config.total_steps, self.step) as progress:
            end = 0
            for index, steps in enumerate(self.config.phase_steps()):
                begin, end = end, end + steps
                if self.step < end and not self.stopping:
                    self._run_phase(index, begin, end, progress)
        self.checkpoints.finish()
        return not self.stopping

    def close(self) -> None:
        """Close the log."""
        self.metrics.close()

    def export_weights(self) -> dict[str, Path]:
        """Write the model, and its average if there is one; returns their files by the prefix of their measures."""
        dtype = self.config.checkpoint.export_dtype
        paths = {"": self.folder / "model.safetensors"}
        self.save_weights(paths[""], dtype)
        if self.config.train.ema_decay:
            paths["ema/"] = self.folder / "model-ema.safetensors"
            self.save_weights(paths["ema/"], dtype, averaged=True)
        for path in paths.values():
            logger.info("wrote %s", path)
        return paths

    def save_weights(self, path: Path, dtype: str, *, averaged: bool = False) -> None:
        """Write the consolidated model, or its moving average; every rank calls this."""
        tensors = checkpoint.gather_weights(self.engine, dtype)
        average = gather_moment(self.engine, optim.AVERAGE) if averaged else {}
        if self.rank.is_first:
            tensors |= {name: tensor.to(tensors[name].dtype) for name, tensor in average.items()}
            self.objective.export(tensors, self.image_size, path)
        dist.barrier()

    def take_weights(self, path: Path) -> None:
        """Go on with the weights of a file of `save_weights`; every rank calls this, and moments stay as they are."""
        fill_masters(self.engine, self.objective.list_readers(self.engine.module, path))
        self.objective.follow_masters(self.engine)
        dist.barrier()

    def _stop(self) -> None:
        self.told_to_stop = True

    def _phase_image_size(self, phase: PhaseConfig) -> int | None:
        return phase.image_size or self.config.model.image_size

    def _build_engine(self, resume: Path | None, progress: Progress | None, weights: Path | None = None) -> Any:
        """Build the model for the current resolution and give it to DeepSpeed."""
        on_gpu = self.device.type == "cuda"
        settings = zero.make_zero_config(self.config, self.rank.world_size, on_gpu=on_gpu)
        if self.rank.is_first:
            logger.info("deepspeed configuration: %s", json.dumps(settings))
        torch.manual_seed(self.config.train.seed)
        with zero.shard_while_building(self.config, settings):
            module = self.objective.build(self.image_size, weights)
        optimizer = optim.build_optimizer(self.objective.parameter_groups(module), self.config.optim)
        if self.config.train.ema_decay:
            optim.keep_average(optimizer, self.config.train.ema_decay)
        engine = zero.make_engine(module, optimizer, settings)
        if resume and progress:
            cut_alike = checkpoint.is_cut_alike(progress, self.config, self.rank.world_size)
            checkpoint.restore_engine(engine, resume, progress, cut_alike=cut_alike)
            logger.info("resumed %s at step %d", resume, self.step)
        self.objective.follow_masters(engine)
        return engine

    def _run_phase(self, index: int, begin: int, end: int, progress: Any) -> None:
        phase = self.config.phases[index]
        if self.step == begin:
            self.guard.start_phase()
        self._set_resolution(phase)
        self.objective.set_patch_drop(self.engine.module, phase.patch_drop)
        loader = self.make_loader(phase)
        if self.loader_state is not None:
            set_position(loader, self.loader_state, required=self.step > begin)
        self.engine.train()
        every = self.config.checkpoint.every_steps
        with closing(Feed(loader, self.device, trim_tokens=not self.config.model.compile)) as feed:
            while self.step < end and not self.stopping:
                self._step(index, phase, feed)
                progress.update()
                self.loader_state = loader.state_dict()
                if self.step == end or self.stopping or self.save_is_due or (every and self.step % every == 0):
                    self._save(index)
                if self._should_measure(end):
                    self._measure_on_the_way()

    def _should_measure(self, phase_end: int) -> bool:
        """After every eval.every_samples, at the end of a phase but the last, and when a SIGTERM ends the run."""
        every, batch_size = self.config.eval.every_samples, self.config.train.batch_size
        if self.measure is None or not every or self.step == self.config.total_steps:  # then the end measures
            return False
        passed = self.step * batch_size // every > (self.step - 1) * batch_size // every
        return passed or self.step == phase_end or self.stopping

    def _measure_on_the_way(self) -> None:
        assert self.measure is not None
        self.measure(self.config, self, self.rank, "")
        self.engine.train()

    def _set_resolution(self, phase: PhaseConfig) -> None:
        """Build the model anew from its own masters when the phase has another image size."""
        wanted = self._phase_image_size(phase)
        if wanted == self.image_size:
            return
        passed = self.folder / f"before-{wanted}.safetensors"
        self.save_weights(passed, "fp32")
        self.engine.destroy()
        self.image_size = wanted
        self.engine = self._build_engine(None, None, passed)
        # DeepSpeed makes the masters out of the weights that it has rounded to the model's precision.
        self.take_weights(passed)
        if self.rank.is_first:
            passed.unlink()

    def _save(self, phase: int) -> None:
        config = self.config
        progress = Progress(
            model=config.model.sized_name,
            image_size=self.image_size or 0,
            optimizer=config.optim.name,
            precision=config.train.precision,
            zero_stage=config.zero.stage,
            world_size=self.rank.world_size,
            batch_size=config.train.batch_size,
            seed=config.train.seed,
            teacher=config.distill.teacher if config.distill else "",
            step=self.step,
            phase=phase,
            num_skipped=self.guard.num_skipped,
            mean_loss=self.guard.mean_loss,
            loader=self.loader_state,
        )
        self.checkpoints.save(self.engine, progress)
        self.saved_at = time.monotonic()

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
        batches = feed.take(self.config.num_micro_batches(self.rank.world_size, phase))
        told: dict[str, float] = {}

        def is_sound(loss: Tensor) -> bool:
            told.update(self._exchange(loss, feed.waited_s))
            return self.guard.is_sound(told["loss"])

        _, scale = self.objective.step(self.engine, batches, self._seed_forward, is_sound)
        grad_norm = self._apply_gradients() if self.guard.is_sound(told["loss"]) else None
        if grad_norm is not None:
            self.objective.follow_masters(self.engine)
        self.step += 1
        self.guard.count_step(grad_norm is not None, told["loss"])
        elapsed_s = time.perf_counter() - start
        flops = self.objective.sample_flops(self.image_size, phase.patch_drop, batches[0])
        self.metrics.write(self._make_record(phase_index, told, scale, rate, grad_norm, elapsed_s, flops))
        self.guard.require_progress(str(self.checkpoints.folder))

    def _exchange(self, loss: Tensor, waited_s: float) -> dict[str, float]:
        """One exchange a step: the mean loss, whether to stop, whether to save by time, the longest wait for data."""
        minutes = self.config.checkpoint.every_minutes
        is_due = bool(minutes) and time.monotonic() - self.saved_at >= 60 * minutes
        mine = torch.tensor([self.told_to_stop, is_due, waited_s], device=loss.device, dtype=torch.float32)
        total = loss.detach().float().reshape(1).clone()
        dist.all_reduce(total)
        dist.all_reduce(mine, op=dist.ReduceOp.MAX)
        stop, due, waited = mine.tolist()
        self.stopping, self.save_is_due = bool(stop), bool(due)
        return {"loss": total.item() / self.rank.world_size, "waited_s": waited}

    def _apply_gradients(self) -> float | None:
        """The optimizer's step: the gradients' norm before clipping, or None when it was not finite and left out."""
        engine = self.engine
        engine.step()
        norm = engine.get_global_grad_norm()
        return float(norm) if engine.was_step_applied() and norm is not None else None

    def _seed_forward(self, micro_batch: int) -> None:
        """Random numbers of one forward, a function of where it stands in the run and of nothing else."""
        place = (self.config.train.seed, self.step, self.rank.rank, micro_batch)
        torch.manual_seed(random.Random(repr(place)).getrandbits(63))

    def _make_record(
        self,
        phase: int,
        told: dict[str, float],
        scale: Tensor | None,
        rate: float,
        grad_norm: float | None,
        elapsed_s: float,
        sample_flops: float,
    ) -> StepRecord:
        batch_size, world_size = self.config.train.batch_size, self.rank.world_size
        tflops = sample_flops * batch_size / world_size / elapsed_s / 1e12
        peak = peak_tflops(self.device)
        return StepRecord(
            step=self.step,
            samples=self.step * batch_size,
            phase=phase,
            loss=told["loss"],
            lr=rate,
            temperature=None if scale is None else 1 / scale.item(),
            grad_norm=grad_norm,
            applied=grad_norm is not None,
            num_skipped=self.guard.num_skipped,
            step_time_s=elapsed_s,
            samples_per_s=batch_size / elapsed_s,
            samples_per_s_per_gpu=batch_size / elapsed_s / world_size,
            tflops_per_gpu=tflops,
            mfu=tflops / peak if peak else None,
            memory_gb=memory_gb(self.device),
            data_wait_share=min(1.0, told["waited_s"] / elapsed_s),
        )


def set_position(loader: Any, state: Any, *, required: bool) -> None:
    """Go on where a checkpoint or the phase before left off; another order of samples starts anew unless `required`.

    So phases that read the same samples see each of them once before any of them twice.

    Raises:
        UserError: when the position is required and the loader's order is another one.
    """
    try:
        loader.load_state_dict(state)
    except UserError:
        if required:
            raise


@contextmanager
def _on_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM, which slurm and Kubernetes send ahead of a kill; a second one ends the process at once.

    A handler runs between two instructions of Python, so not while a first step compiles or waits for other ranks. The
    second signal is therefore counted by a thread, which the interpreter's wake-up file tells of every signal.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.signal(signal.SIGTERM, lambda *_: stop())
    file_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second_sigterm, args=(reading,), name="sigterm", daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.set_wakeup_fd(file_before)
        os.close(writing)


def _end_at_second_sigterm(reading: int) -> None:
    with os.fdopen(reading, "rb", buffering=0) as file:
        num_signals = 0
        while received := file.read(1):
            num_signals += received[0] == signal.SIGTERM
            if num_signals == 2:
                sys.stderr.write("A second SIGTERM ends this process without saving.\n")
                os._exit(128 + signal.SIGTERM)
