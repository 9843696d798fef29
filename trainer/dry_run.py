"""What a run would take, before it takes it: parameters, FLOPs, memory a GPU, speed and days.

    python -m trainer.train --config eva-clip-18b --dry-run --num-gpus 360 --gpu H200

Needs neither torch nor a GPU: everything is computed from the recipe's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainer import models, sizes
from trainer.columns import align
from trainer.config import Config, PhaseConfig
from trainer.metrics import DENSE_BF16_TFLOPS
from trainer.models import flops
from trainer.models.config import ClipConfig

ASSUMED_MFU = 0.4
"""Utilisation that speed and days are told for where nothing was measured."""
MEASURED_MFU = {
    # On one GPU, without other ranks to wait for: model, GPU, whether activations are recomputed.
    ("eva02-b-16", "H100", False): 0.122,
    ("eva02-l-14", "H100", False): 0.106,
    ("eva02-e-14-plus", "H100", False): 0.396,
    ("eva02-e-14-plus", "H100", True): 0.320,
}
MEASURED_AT = "measured on one GPU at commit dc3ff19, whose products were not padded and whose optimizer step waited"
MEMORY_GB = {"H200": 141, "H100": 80, "GH200": 96, "A100": 80, "L40S": 48, "V100": 32}
"""Of the largest kind of each card."""
USABLE = 0.95
"""Share of it; the rest is CUDA's, NCCL's and lost between blocks. Estimates were 4 to 13 % above what was measured."""
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
    update: float
    """What the optimizer's step takes when the activations are gone."""
    host: float = 0.0

    @property
    def total(self) -> float:
        """All bytes on the GPU at the highest point of a step."""
        kept = self.weights + self.gradients + self.optimizer + self.buffers
        return kept + max(self.activations, self.update)


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
        _describe_fit(settings, num_gpus, gpu),
        "",
        *_describe_phases(settings, num_gpus, gpu),
    ]
    return "\n".join(lines) + "\n"


def clip_config(settings: Config, phase: PhaseConfig) -> ClipConfig:
    """The model's numbers at the phase's resolution. Raises UserError when there is no such model."""
    return models.config(settings.model.sized_name, image_size=phase.image_size or settings.model.image_size)


def teacher_config(settings: Config, image_size: int) -> ClipConfig | None:
    """The teacher's numbers under masked image modelling, with as many patches as the student."""
    if settings.distill is None:
        return None
    teacher = models.config(settings.distill.teacher)
    # The teacher must give one feature a patch of the student, whatever the two patch sizes are.
    grid = image_size // models.config(settings.model.sized_name).vision.patch_size
    return teacher.override(image_size=grid * teacher.vision.patch_size)


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
        return flops.step_flops(config, phase.patch_drop, num_frames=phase.frames if phase.clips else 1)
    # Of student and teacher every patch is wanted, so no block is cut short.
    return 3 * flops.image_flops(config, published=True) + flops.image_flops(teacher, published=True)


def choose_mfu(settings: Config, gpu: str) -> tuple[float, str]:
    """The utilisation to expect, and where the figure comes from."""
    name, recompute = settings.model.sized_name, settings.model.grad_checkpointing
    if settings.distill is None:
        if (found := MEASURED_MFU.get((name, gpu, recompute))) is not None:
            return found, MEASURED_AT
        if recompute and (found := MEASURED_MFU.get((name, gpu, False))) is not None:
            # Forward, forward again and backward where the figure knows forward and backward.
            return 0.75 * found, f"three quarters, for recomputation, of what was {MEASURED_AT}"
    return ASSUMED_MFU, "assumed: this model was not measured on this GPU"


def samples_per_s(settings: Config, phase: PhaseConfig, num_gpus: int, gpu: str) -> float:
    """Of the whole job at the utilisation of `choose_mfu`."""
    mfu, _ = choose_mfu(settings, gpu)
    return num_gpus * DENSE_BF16_TFLOPS[gpu] * 1e12 * mfu / train_flops(settings, phase)


def fits(settings: Config, num_gpus: int, gpu: str) -> bool:
    """Whether the estimate at the configured stage is within the GPU's memory."""
    return estimate_memory(settings, num_gpus, settings.zero.stage).total <= USABLE * MEMORY_GB[gpu] * 1e9


def find_micro_batch(settings: Config, num_gpus: int, gpu: str) -> int | None:
    """The largest micro-batch for all phases that fits and divides a GPU's share of the batch; None when not even 1."""
    share = settings.train.batch_size // num_gpus
    phases = tuple(replace(phase, micro_batch_size=None) for phase in settings.phases)
    for micro in range(share, 0, -1):
        if share % micro == 0:
            train = replace(settings.train, micro_batch_size=micro)
            if fits(replace(settings, train=train, phases=phases), num_gpus, gpu):
                return micro
    return None


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
    if settings.train.ema_decay:
        optimizer += 4 * count / shards[2]
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
        update=_estimate_update(settings, num_gpus, stage),
        host=host,
    )


def _estimate_update(settings: Config, num_gpus: int, stage: int) -> float:
    """Bytes that the optimizer's step takes on the GPU for as long as it lasts."""
    zero, optim, train = settings.zero, settings.optim, settings.train
    if zero.offload_optimizer and stage > 0:
        return 0.0
    count = num_parameters(settings)
    decays = bool(optim.image.weight_decay or optim.text.weight_decay)
    each = sizes.update_bytes(train.precision, optim.name, decays=decays, gradients=zero.gradients)
    together = count if stage == 0 else min(sizes.ELEMENTS_AT_ONCE, count / num_gpus)
    # Stage 1 without overlapping joins all gradients before it scatters them.
    scattered = count * sizes.bytes_per_parameter(train.precision, optim.name, zero.gradients).gradients
    return max(each * together, scattered if stage == 1 and not zero.overlap_comm else 0.0)


def estimate_activations(settings: Config, num_gpus: int) -> float:
    """Bytes that one micro-batch keeps for its backward pass, in the phase that keeps most, and the loss's logits.

    A clip keeps what as many pictures keep as it has frames.
    """
    train = settings.train
    share = train.batch_size // num_gpus
    num_bytes = 4 if train.precision == "fp32" else 2
    recompute = settings.model.grad_checkpointing
    most = 0
    for phase in settings.phases:
        config = clip_config(settings, phase)
        one = sizes.image_activations(config, phase.patch_drop, recompute=recompute, num_bytes=num_bytes)
        if phase.clips:
            one *= phase.frames
        if settings.distill is None:
            one += sizes.text_activations(config, recompute=recompute, num_bytes=num_bytes)
        padded = sizes.padded_weights(config, recompute=recompute, num_bytes=num_bytes)
        most = max(most, share // settings.num_micro_batches(num_gpus, phase) * one + padded)
    # Similarities, logits and a temporary of them in float32: some of this rank's rows against the whole batch.
    logits = 0 if settings.distill else 3 * 4 * min(share, train.loss_chunk_rows) * train.batch_size
    return most + logits


def _describe_model(settings: Config, config: ClipConfig) -> list[str]:
    count = num_parameters(settings)
    each = sizes.bytes_per_parameter(settings.train.precision, settings.optim.name, settings.zero.gradients)
    image, text = sizes.image_parameters(config), sizes.text_parameters(config)
    towers = "image tower under pre-training" if settings.distill else f"image {image:,}, text {text:,}"
    lines = [
        f"{settings.model.sized_name} at {config.vision.image_size} px",
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
    stages = [estimate_memory(settings, num_gpus, stage) for stage in range(4)]
    names = ["weights", "gradients", "optimizer", "buffers", "activations", "update", "total"]
    rows = [[name, *(f"{getattr(stage, name) / 1e9:,.2f}" for stage in stages)] for name in names]
    rows[names.index("update")][0] = "or update"
    if any(stage.host for stage in stages):
        rows.append(["host memory", *(f"{stage.host / 1e9:,.2f}" for stage in stages)])
    head = ["GB a GPU, estimate", *(f"ZeRO {i}" + "*" * (i == settings.zero.stage) for i in range(4))]
    return [f"batch           {_describe_batch(settings, num_gpus)}", *align([head, *rows])]


def _describe_batch(settings: Config, num_gpus: int) -> str:
    size = settings.train.batch_size
    counts = {settings.num_micro_batches(num_gpus, phase): None for phase in settings.phases}
    splits = [f"{num_gpus} GPUs × {parts} micro-batches × {size // (num_gpus * parts)}" for parts in counts]
    return f"{size:,} = {', in other phases '.join(splits)}"


def _describe_fit(settings: Config, num_gpus: int, gpu: str) -> str:
    stage = settings.zero.stage
    needed = estimate_memory(settings, num_gpus, stage).total / 1e9
    told = f"{needed:,.1f} of {MEMORY_GB[gpu]} GB of one {gpu} at ZeRO {stage}"
    if fits(settings, num_gpus, gpu):
        return f"fits            {told}"
    micro = find_micro_batch(settings, num_gpus, gpu)
    if micro is not None:
        own = ", without micro_batch_size in [[phases]]" if any(p.micro_batch_size for p in settings.phases) else ""
        return f"does not fit    {told}; train.micro_batch_size={micro}{own} would"
    return f"does not fit    {told}, whatever the batch: more GPUs, a higher stage, recomputation or offload may"


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
    mfu, source = choose_mfu(settings, gpu)
    last = f"{_format_days(total)} days at {mfu:.0%} MFU of {num_gpus} × {gpu} ({peak}); {source}"
    return [*align(rows), last]


def _format_flops(value: float) -> str:
    unit = next(((scale, name) for scale, name in ((1e12, "T"), (1e9, "G")) if value >= scale), (1e6, "M"))
    return f"{value / unit[0]:.2f} {unit[1]}FLOP"


def _format_days(value: float) -> str:
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"
