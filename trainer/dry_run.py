"""What a run would take, before it takes it: parameters, FLOPs, memory a GPU, speed and days.

    python -m trainer.train --config eva-clip-18b --dry-run --num-gpus 360 --gpu H200

Needs neither torch nor a GPU: everything is computed from the recipe's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer import models, sizes
from trainer.config import Config, PhaseConfig
from trainer.metrics import DENSE_BF16_TFLOPS
from trainer.models import flops
from trainer.models.config import ClipConfig

MFU = 0.4
"""Utilisation that speed and days are told for."""
MAX_LIVE_PARAMETERS = 10**9
"""Elements that ZeRO-3 keeps gathered at most: DeepSpeed's default of stage3_max_live_parameters."""
SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU under one ZeRO stage, and in the host's memory when something is offloaded."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    host: float = 0.0

    @property
    def total(self) -> float:
        """All bytes on the GPU."""
        return self.weights + self.gradients + self.optimizer + self.buffers + self.activations


def describe_run(settings: Config, num_gpus: int, gpu: str = "H100") -> str:
    """The whole answer as text, ending in a newline.

    Raises:
        UserError: for an unknown model, or a batch that does not divide by `num_gpus`.
    """
    config = clip_config(settings, settings.phases[0])
    lines = [
        *_describe_model(settings, config),
        "",
        *_describe_memory(settings, num_gpus),
        "",
        *_describe_phases(settings, num_gpus, gpu),
    ]
    return "\n".join(lines) + "\n"


def clip_config(settings: Config, phase: PhaseConfig) -> ClipConfig:
    """The model's numbers at the phase's resolution. Raises UserError when there is no such model."""
    return models.config(settings.model.name, image_size=phase.image_size or settings.model.image_size)


def teacher_config(settings: Config, image_size: int) -> ClipConfig | None:
    """The teacher's numbers under masked image modelling, with as many patches as the student."""
    if settings.distill is None:
        return None
    found = models.config(settings.distill.teacher)
    # The teacher must give one feature a patch of the student, whatever the two patch sizes are.
    grid = image_size // models.config(settings.model.name).vision.patch_size
    return found.override(image_size=grid * found.vision.patch_size)


def num_parameters(settings: Config) -> int:
    """Parameters that are trained."""
    config = clip_config(settings, settings.phases[0])
    teacher = teacher_config(settings, config.vision.image_size)
    if teacher is None:
        return sizes.clip_parameters(config)
    return sizes.masked_image_parameters(config, teacher.embed_dim)


def train_flops(settings: Config, phase: PhaseConfig) -> int:
    """FLOPs to train on one sample of the phase, recomputation not counted; with a teacher, its forward too."""
    config = clip_config(settings, phase)
    teacher = teacher_config(settings, config.vision.image_size)
    if teacher is None:
        return flops.step_flops(config, phase.patch_drop)
    # Of student and teacher every patch is wanted, so no block is cut short.
    return 3 * flops.image_flops(config, published=True) + flops.image_flops(teacher, published=True)


def samples_per_s(settings: Config, phase: PhaseConfig, num_gpus: int, gpu: str) -> float:
    """Of the whole job at 40 % of the GPUs' dense bf16 peak."""
    return num_gpus * DENSE_BF16_TFLOPS[gpu] * 1e12 * MFU / train_flops(settings, phase)


def estimate_memory(settings: Config, num_gpus: int, stage: int) -> Memory:
    """The estimate for one GPU of `num_gpus` at ZeRO `stage` (arXiv 1910.02054, section 5), bytes."""
    zero, count = settings.zero, num_parameters(settings)
    each = sizes.bytes_per_parameter(settings.train.precision, settings.optim.name, zero.gradients)
    shards = [num_gpus if stage >= first else 1 for first in (3, 2, 1)]
    weights, gradients, optimizer = (
        count * size / parts for size, parts in zip((each.weights, each.gradients, each.optimizer), shards, strict=True)
    )
    teacher = teacher_config(settings, clip_config(settings, settings.phases[0]).vision.image_size)
    if teacher:
        weights += sizes.image_parameters(teacher) * each.weights / shards[0]
    buffers = 0.0
    if stage > 0:
        buffers += min(zero.bucket_size, count) * each.weights * (2 if zero.overlap_comm else 1)
    if stage == 3:
        buffers += min(MAX_LIVE_PARAMETERS + zero.bucket_size, count) * each.weights
    host = 0.0
    if zero.offload_optimizer and stage > 0:
        # The CPU's optimizer wants the gradients of its partition beside its moments.
        host, optimizer = host + optimizer + gradients, 0.0
    if zero.offload_parameters and stage == 3:
        host, weights = host + weights, 0.0
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        buffers=buffers,
        activations=estimate_activations(settings, num_gpus),
        host=host,
    )


def estimate_activations(settings: Config, num_gpus: int) -> float:
    """Bytes that one micro-batch keeps for its backward pass, in the phase that keeps most, and the loss's logits."""
    train = settings.train
    share = train.batch_size // num_gpus
    micro = share // train.num_micro_batches(num_gpus)
    num_bytes = 4 if train.precision == "fp32" else 2
    recompute = settings.model.grad_checkpointing
    most = 0
    for phase in settings.phases:
        config = clip_config(settings, phase)
        one = sizes.image_activations(config, phase.patch_drop, recompute=recompute, num_bytes=num_bytes)
        if settings.distill is None:
            one += sizes.text_activations(config, recompute=recompute, num_bytes=num_bytes)
        most = max(most, one)
    # Similarities, logits and a temporary of them in float32: some of this rank's rows against the whole batch.
    logits = 0 if settings.distill else 3 * 4 * min(share, train.loss_chunk_rows) * train.batch_size
    return micro * most + logits


def _describe_model(settings: Config, config: ClipConfig) -> list[str]:
    count = num_parameters(settings)
    each = sizes.bytes_per_parameter(settings.train.precision, settings.optim.name, settings.zero.gradients)
    image, text = sizes.image_parameters(config), sizes.text_parameters(config)
    towers = "image tower under pre-training" if settings.distill else f"image {image:,}, text {text:,}"
    lines = [
        f"{settings.model.name} at {config.vision.image_size} px",
        f"parameters      {count:,} ({towers})",
        f"training state  {count * each.total / 1e9:,.1f} GB unsharded: {each.total} bytes a parameter "
        f"({each.weights} weights, {each.gradients} gradients, {each.optimizer} {settings.optim.name})",
    ]
    drops = sorted({0.0, *(phase.patch_drop for phase in settings.phases)})
    images = ", ".join(
        f"{_format_flops(flops.image_flops(config, drop, published=True))}"
        + (f" at {drop:.0%} patch drop" if drop else "")
        for drop in drops
    )
    lines.append(f"forward FLOPs   image {images}; caption {_format_flops(flops.text_flops(config, published=True))}")
    if settings.distill:
        where = "sharded over the GPUs" if settings.zero.stage == 3 else "whole on every GPU"
        lines.append(f"teacher         {settings.distill.teacher}, frozen, {where}")
    return lines


def _describe_memory(settings: Config, num_gpus: int) -> list[str]:
    train = settings.train
    parts = train.num_micro_batches(num_gpus)
    micro = train.batch_size // (num_gpus * parts)
    stages = [estimate_memory(settings, num_gpus, stage) for stage in range(4)]
    names = ["weights", "gradients", "optimizer", "buffers", "activations", "total"]
    rows = [[name, *(f"{getattr(stage, name) / 1e9:,.2f}" for stage in stages)] for name in names]
    if any(stage.host for stage in stages):
        rows.append(["host memory", *(f"{stage.host / 1e9:,.2f}" for stage in stages)])
    head = ["GB a GPU, estimate", *(f"ZeRO {i}" + "*" * (i == settings.zero.stage) for i in range(4))]
    batch = f"batch           {train.batch_size:,} = {num_gpus} GPUs × {parts} micro-batches × {micro}"
    return [batch, *_align([head, *rows])]


def _describe_phases(settings: Config, num_gpus: int, gpu: str) -> list[str]:
    head = ["phase", "samples", "px", "patch drop", "FLOPs a sample", "samples/s", "days"]
    rows, total = [head], 0.0
    for index, phase in enumerate(settings.phases):
        rate = samples_per_s(settings, phase, num_gpus, gpu)
        days = phase.samples / rate / SECONDS_A_DAY
        total += days
        pixels = clip_config(settings, phase).vision.image_size
        cost = _format_flops(train_flops(settings, phase))
        rows.append([str(index), f"{phase.samples:,}", str(pixels), f"{phase.patch_drop:.0%}", cost, f"{rate:,.0f}"])
        rows[-1].append(_format_days(days))
    peak = f"{DENSE_BF16_TFLOPS[gpu]:.0f} dense bf16 TFLOP/s"
    last = f"{_format_days(total)} days at {MFU:.0%} MFU of {num_gpus} × {gpu} ({peak})"
    return [*_align(rows), last]


def _format_flops(value: float) -> str:
    unit = next(((scale, name) for scale, name in ((1e12, "T"), (1e9, "G")) if value >= scale), (1e6, "M"))
    return f"{value / unit[0]:.2f} {unit[1]}FLOP"


def _format_days(value: float) -> str:
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
