"""What a step tells: one line, one JSON record in metrics.jsonl, and TensorBoard and wandb where asked for.

torch is imported where it is used: a dry run reads the table of GPUs without it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curation.progress import bar
from trainer.config import Config

logger = logging.getLogger("trainer")

DENSE_BF16_TFLOPS = {
    # NVIDIA's data sheets, dense bf16 (fp16 on V100) without sparsity.
    "H200": 989.0,
    "H100": 989.0,
    "GH200": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "V100": 125.0,
}


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One optimizer step, as written to metrics.jsonl. `None` is unknown, e.g. MFU without a GPU."""

    step: int
    samples: int
    """Seen since the start, over all ranks."""
    phase: int
    loss: float
    """Mean over the ranks; null in metrics.jsonl when it is not finite."""
    lr: float
    """The highest of all groups."""
    temperature: float | None
    grad_norm: float | None
    """Before clipping."""
    applied: bool
    """False when the step was skipped."""
    num_skipped: int
    step_time_s: float
    samples_per_s: float
    samples_per_s_per_gpu: float
    tflops_per_gpu: float
    """Model TFLOP/s: 3 forward passes' worth, recomputation not counted."""
    mfu: float | None
    memory_gb: float
    """Peak of this rank: GPU memory, or resident memory without one."""
    data_wait_share: float
    """Share of the step that the slowest rank waited for its batch."""

    def line(self) -> str:
        """The record as one line for people."""
        parts = [
            f"step {self.step}",
            f"samples {self.samples:,}",
            f"loss {self.loss:.4f}",
            f"lr {self.lr:.2e}",
            f"temp {_format_number(self.temperature, '.4f')}",
            f"grad {_format_number(self.grad_norm, '.3f')}",
            f"{self.samples_per_s:,.1f} samples/s ({self.samples_per_s_per_gpu:,.1f} a GPU)",
            f"{self.tflops_per_gpu:.3g} TFLOP/s",
            f"MFU {_format_number(self.mfu, '.1%')}",
            f"{self.memory_gb:.2f} GB",
            f"data wait {self.data_wait_share:.1%}",
        ]
        return " | ".join(parts if self.applied else [*parts, f"SKIPPED ({self.num_skipped} so far)"])


def _replace_nan(value: Any) -> Any:
    """JSON has no NaN: readers would refuse the line."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _format_number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


@contextmanager
def training_bar(total: int, done: int) -> Iterator[Any]:
    """A bar over steps when stderr is a terminal; log lines are then written above it, not through it."""
    with bar(total, "train", "step") as progress:
        progress.update(done)
        if not sys.stderr.isatty():
            yield progress
            return
        from tqdm.contrib.logging import logging_redirect_tqdm

        with logging_redirect_tqdm():
            yield progress


def peak_tflops(device: Any) -> float | None:
    """Dense bf16 peak of a CUDA device, or None when it is no known GPU."""
    if device.type != "cuda":
        return None
    import torch

    name = torch.cuda.get_device_name(device)
    return next((peak for model, peak in DENSE_BF16_TFLOPS.items() if model in name), None)


def memory_gb(device: Any) -> float:
    """Peak memory of this process, in 10⁹ bytes: of the GPU, or resident."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e9
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a process begins with what its parent held when it was started
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes on macOS


class Metrics:
    """The sinks of one run; silent on every rank but the first."""

    def __init__(self, config: Config, folder: Path, *, is_first: bool) -> None:
        self.enabled, self.every = is_first, config.log.every_steps
        self._file = self._board = self._wandb = None
        if not is_first:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "metrics.jsonl").open("a", buffering=1)
        if config.log.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))
        if config.log.wandb_project:
            import wandb

            # The same folder is the same run, so a resumed one goes on in its own curves.
            run = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
            self._wandb = wandb.init(
                project=config.log.wandb_project, id=run, resume="allow", dir=str(folder), config=asdict(config)
            )

    def write(self, record: StepRecord) -> None:
        """Tell one step everywhere; the line only every log.every_steps and for skipped steps."""
        if not self.enabled:
            return
        if record.step % self.every == 0 or not record.applied:
            logger.info(record.line())
        self.write_values(asdict(record), record.step)

    def write_values(self, values: dict[str, Any], step: int) -> None:
        """Numbers of any kind, evaluation included, into the file, TensorBoard and wandb."""
        if self._file is not None:
            self._file.write(json.dumps({name: _replace_nan(value) for name, value in values.items()}) + "\n")
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and k != "step"}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        """Flush and close everything."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
