"""The trainer's configuration: one TOML file into frozen dataclasses, `--set section.key=value` over it.

`load_config(path, overrides)` reads a file or a shipped recipe of that name. Nothing here imports torch or deepspeed:
a dry run, a launcher or a scheduler script can read a recipe anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from curation.errors import UserError
from curation.settings import apply_overrides, find_config, from_dict, read_toml
from trainer.eval_config import EvalConfig
from trainer.models.configs import spell_name
from trainer.values import require, require_share

SHIPPED = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, and what it starts from; paths may be empty.

    `weights` fills the whole CLIP, `image_weights` (a MIM checkpoint or a CLIP) and `text_weights` (a CLIP) one tower.
    """

    name: str
    depth: int | None = None
    """Layers of the image tower, for a model that is in no table; the named model's by default, as width and heads."""
    width: int | None = None
    """Of the image tower; its MLP keeps its ratio."""
    heads: int | None = None
    """Attention heads of the image tower; without it they keep their width."""
    image_size: int | None = None
    """Pixels along a side; the model's own by default."""
    drop_path: float | None = None
    """Stochastic depth of the last block of the image tower; the model's own by default."""
    grad_checkpointing: bool = False
    compile: bool = False
    fuse: Literal["auto", "on", "off"] = "auto"
    """Compile small functions between the matrix products: "auto" those of large tensors, on GPUs."""
    weights: str = ""
    image_weights: str = ""
    text_weights: str = ""
    lock_image: bool = False
    """Keep the image tower as its weights are (LiT, arXiv 2111.07991): no gradient, no drop path, no patch drop."""
    lock_text: bool = False

    def __post_init__(self) -> None:
        sizes = (self.depth, self.width, self.heads)
        require(bool(self.name) or not any(sizes), "depth, width and heads change a model: name it")
        require(
            ":" not in self.name or not any(sizes), f"{self.name} says its sizes already: leave depth, width and heads"
        )
        require(not (self.lock_image and self.lock_text), "lock_image and lock_text leave no tower to train")
        for tower in ("image", "text"):
            require(
                not getattr(self, f"lock_{tower}") or bool(self.weights or getattr(self, f"{tower}_weights")),
                f"lock_{tower} keeps a tower as its weights are, so name them: weights or {tower}_weights",
            )
        require(not (self.weights and (self.image_weights or self.text_weights)), "weights already fills both towers")
        if self.drop_path is not None:
            require_share("drop_path", self.drop_path)
        for size in ("depth", "width", "heads"):
            value = getattr(self, size)
            require(value is None or value > 0, f"{size} must be positive, not {value}")

    @property
    def sized_name(self) -> str:
        """The model's name with the sizes given here, as `trainer.models` takes it."""
        return spell_name(self.name, {"depth": self.depth, "width": self.width, "heads": self.heads})


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which samples, as `trainer.data.Loader` takes them."""

    root: str = ""
    where: str = ""
    """SQL over the train index (or the manifest of an adopted folder)."""
    mix: dict[str, float] = field(default_factory=dict)
    """Name of a source → its share of every batch; empty takes all samples alike."""
    num_workers: int = 4
    """Processes of each rank."""
    table: Literal["auto", "train_index", "manifest"] = "auto"
    captions: dict[str, float] = field(default_factory=dict)
    """Column of the table → how often it is drawn as the caption; empty takes the stored caption."""
    verify: bool = False
    """Check every picture against its recorded sha256."""
    cache: str = ""
    """A local folder for what is read from a remote root; empty keeps nothing."""
    cache_bytes: int = 100 << 30

    def __post_init__(self) -> None:
        require(self.num_workers >= 0, f"num_workers must be at least 0, not {self.num_workers}")
        require(self.cache_bytes > 0, f"cache_bytes must be positive, not {self.cache_bytes}")
        require(all(share > 0 for share in self.captions.values()), "every share of captions must be positive")
        require(all(share > 0 for share in self.mix.values()), "every share of mix must be positive")


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """A stretch of training by samples seen. `where` and `mix` replace those of [data]; the rest is per phase."""

    samples: int
    """Samples seen in this phase, counted over all ranks."""
    patch_drop: float = 0.0
    image_size: int | None = None
    """A change of resolution rebuilds the model from the last weights, with fresh optimizer moments."""
    where: str | None = None
    mix: dict[str, float] | None = None
    clips: str = ""
    """A folder of tars of videos by their frames (trainer.data.clips), to train on in place of [data]."""
    frames: int = 8
    """Of each clip; a sample is their mean embedding."""
    micro_batch_size: int | None = None
    """In place of that of [train], where a sample of this phase takes more memory, as a clip does."""

    def __post_init__(self) -> None:
        require(self.micro_batch_size is None or self.micro_batch_size > 0, "micro_batch_size must be positive")
        require(self.frames > 0, f"frames must be positive, not {self.frames}")
        require(not self.clips or (self.where is None and self.mix is None), "where and mix choose rows, not clips")
        require(self.samples > 0, f"samples must be positive, not {self.samples}")
        require_share("patch_drop", self.patch_drop)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One optimizer step: batch, loss, precision and what to do when it goes wrong."""

    batch_size: int
    """Samples of one optimizer step, over all ranks and micro-batches."""
    micro_batch_size: int | None = None
    """Samples a rank holds activations of at once; by default its whole share of the batch."""
    loss: Literal["infonce", "siglip"] = "infonce"
    loss_chunk_rows: int = 1024
    """Rows of the loss's logits that a rank holds at once, each as long as the whole batch."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    temperature: float | None = None
    """Fixed temperature; None learns it."""
    initial_temperature: float | None = None
    """Where a learned temperature starts; by default the loss's own: 0.07 (CLIP), 0.1 (SigLIP)."""
    min_temperature: float = 0.01
    """Bound of a learned temperature (CLIP, arXiv 2103.00020, section 2.5)."""
    seed: int = 0
    spike_factor: float = 0.0
    """A step whose loss exceeds this multiple of the running mean is skipped; 0 skips only non-finite ones."""
    ema_decay: float = 0.0
    """Of an exponential moving average of the masters, exported and evaluated beside them; 0 keeps none."""
    max_skipped_steps: int = 20
    """Consecutive skipped steps after which training stops. fp16 needs some while its loss scale is found."""

    def __post_init__(self) -> None:
        require(self.batch_size > 0, f"batch_size must be positive, not {self.batch_size}")
        require(self.loss_chunk_rows > 0, f"loss_chunk_rows must be positive, not {self.loss_chunk_rows}")
        require(self.micro_batch_size is None or self.micro_batch_size > 0, "micro_batch_size must be positive")
        for name in ("temperature", "initial_temperature", "min_temperature"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be positive, not {value}")
        require(
            self.temperature is None or self.initial_temperature is None,
            "temperature fixes it and initial_temperature learns it: give one of the two",
        )
        require(self.spike_factor == 0 or self.spike_factor > 1, "spike_factor must be 0 or above 1")
        require_share("ema_decay", self.ema_decay)
        require(self.max_skipped_steps > 0, "max_skipped_steps must be positive")

    def num_micro_batches(self, world_size: int, micro_batch_size: int | None = None) -> int:
        """Micro-batches of one step on each of `world_size` ranks. Raises UserError when the batch does not divide."""
        micro = micro_batch_size or self.micro_batch_size or self.batch_size // world_size or 1
        if self.batch_size % (world_size * micro):
            raise UserError(
                f"A batch of {self.batch_size} does not divide into {world_size} ranks × micro-batches of {micro}: "
                f"set train.batch_size to a multiple of {world_size * micro}."
            )
        return self.batch_size // (world_size * micro)


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Optimizer settings of one tower. Layer decay d scales depth k's rate by d ** (max_depth - k)."""

    lr: float
    weight_decay: float = 0.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        require(self.lr >= 0, f"lr must not be negative, not {self.lr}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative, not {self.weight_decay}")
        require(0 < self.layer_decay <= 1, f"layer_decay lies in (0, 1], not {self.layer_decay}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and schedule: linear warm-up, then a cosine over all phases down to `final_lr_ratio` of the rate."""

    image: TowerConfig
    text: TowerConfig
    name: Literal["adamw", "lamb", "lamb-eva", "lion"] = "adamw"
    """"lamb" adapts the rate of every tensor, as the paper does (arXiv 1904.00962, algorithm 2); "lamb-eva" is the
    optimizer of EVA's code: it adapts only where weight decay is not 0, without an upper bound, and clips at norm 1."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    scale_lr: float | None = None
    """Learning rate of the temperature and bias; the text tower's by default."""
    warmup_steps: int = 0
    warmup_samples: int = 0
    final_lr_ratio: float = 0.0
    clip_norm: float = 0.0
    """Global gradient norm above which gradients are scaled down; 0 never."""
    max_trust_ratio: float = 10.0
    """Upper bound of ‖w‖ / ‖update‖ in "lamb"."""

    @property
    def gradient_clip(self) -> float:
        """The norm to clip at, which is `clip_norm` but at most 1 in "lamb-eva"; 0 never clips."""
        return min(self.clip_norm or 1.0, 1.0) if self.name == "lamb-eva" else self.clip_norm

    def __post_init__(self) -> None:
        require(all(0 <= beta < 1 for beta in self.betas), f"betas lie in [0, 1), not {self.betas}")
        require(self.eps > 0, f"eps must be positive, not {self.eps}")
        require(not (self.warmup_steps and self.warmup_samples), "give warmup_steps or warmup_samples, not both")
        require(min(self.warmup_steps, self.warmup_samples) >= 0, "a warm-up must not be negative")
        require(0 <= self.final_lr_ratio <= 1, f"final_lr_ratio lies in [0, 1], not {self.final_lr_ratio}")
        require(self.clip_norm >= 0, f"clip_norm must not be negative, not {self.clip_norm}")
        require(self.max_trust_ratio > 0, f"max_trust_ratio must be positive, not {self.max_trust_ratio}")


@dataclass(frozen=True, kw_only=True)
class ZeroConfig:
    """DeepSpeed's ZeRO (arXiv 1910.02054): 0 shards nothing, 1 moments, 2 gradients too, 3 parameters too."""

    stage: Literal[0, 1, 2, 3] = 1
    offload_optimizer: bool = False
    offload_parameters: bool = False
    overlap_comm: bool = True
    """Reduce gradients while the backward pass runs; only on a GPU."""
    bucket_size: int = 200_000_000
    """Elements in one gradient bucket."""
    gradients: Literal["model", "fp32"] = "model"
    """Precision in which micro-batches' gradients add up."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys merged into DeepSpeed's own configuration last, for what has no name here."""

    def __post_init__(self) -> None:
        require(not self.offload_parameters or self.stage == 3, "offload_parameters needs stage 3")
        require(not self.offload_optimizer or self.stage > 0, "offload_optimizer needs stage 1, 2 or 3")
        require(self.gradients == "model" or self.stage > 0, 'gradients = "fp32" needs stage 1, 2 or 3')
        require(self.bucket_size > 0, f"bucket_size must be positive, not {self.bucket_size}")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Saving and resuming, below `folder`/checkpoints."""

    every_steps: int = 0
    """0 saves by time, at the end of each phase and on SIGTERM only."""
    every_minutes: float = 30.0
    """Save after this long since the last time, at the end of a step; 0 never by time."""
    keep_last: int = 3
    resume: str = "auto"
    """"auto" goes on from the newest checkpoint of this folder if there is one, "never" starts afresh and refuses a
    folder that has one, and a path names one checkpoint."""
    staging: str = ""
    """A fast local folder to save into; training goes on while a thread copies the checkpoint to its place."""
    export_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the consolidated model.safetensors that the end of training writes."""

    def __post_init__(self) -> None:
        require(self.every_steps >= 0, f"every_steps must not be negative, not {self.every_steps}")
        require(self.every_minutes >= 0, f"every_minutes must not be negative, not {self.every_minutes}")
        require(self.keep_last > 0, f"keep_last must be positive, not {self.keep_last}")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where each step is told, besides the line and `folder`/metrics.jsonl."""

    every_steps: int = 1
    tensorboard: bool = False
    wandb_project: str = ""

    def __post_init__(self) -> None:
        require(self.every_steps > 0, f"every_steps must be positive, not {self.every_steps}")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Masked image modelling from a CLIP teacher (`trainer.distill`)."""

    teacher: str
    """A model's name."""
    teacher_weights: str = ""
    """The teacher's checkpoint; empty is a random teacher, which only makes sense in tests."""
    mask_share: float = 105 / 256
    """Share of the patches that are masked (EVA: 105 of 256)."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Share of the picture's area that a random crop keeps, from and to (EVA's --crop_scale)."""
    flip_share: float = 0.5
    """Share of the pictures that are mirrored: there are no captions that would become wrong."""

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        require(0 < low <= high <= 1, f"crop_scale goes from above 0 to at most 1, not {self.crop_scale}")
        require(0 <= self.flip_share <= 1, f"flip_share lies in [0, 1], not {self.flip_share}")
        require(0 < self.mask_share < 1, f"mask_share lies in (0, 1), not {self.mask_share}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a run needs."""

    model: ModelConfig
    train: TrainConfig
    optim: OptimConfig
    phases: tuple[PhaseConfig, ...]
    data: DataConfig = field(default_factory=DataConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    distill: DistillConfig | None = None
    folder: str = "runs/default"
    """Where the run writes: log, metrics, checkpoints."""

    def __post_init__(self) -> None:
        require(bool(self.phases), "there is no [[phases]], so nothing to train")
        require(
            self.distill is None or not any(phase.clips for phase in self.phases),
            "masked image modelling knows no clips: remove them from [[phases]]",
        )
        require(
            not (self.model.compile and self.zero.stage == 3),
            "model.compile and zero.stage = 3 do not go together (torch would compile DeepSpeed's hooks again at every "
            "step): choose one of the two",
        )

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all phases; each phase ends on a whole step."""
        return sum(self.phase_steps())

    @property
    def warmup_steps(self) -> int:
        """Steps of the warm-up, however it was given."""
        return self.optim.warmup_steps or math.ceil(self.optim.warmup_samples / self.train.batch_size)

    def num_micro_batches(self, world_size: int, phase: PhaseConfig) -> int:
        """Micro-batches of a step of the phase on each rank. Raises UserError when the batch does not divide."""
        return self.train.num_micro_batches(world_size, phase.micro_batch_size)

    def phase_steps(self) -> list[int]:
        """Steps of each phase, at least one."""
        return [max(1, round(phase.samples / self.train.batch_size)) for phase in self.phases]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration at `path` with `section.key=value` overrides applied. Raises UserError."""
    file = find_config(path, SHIPPED, "configuration")
    return from_dict(Config, apply_overrides(read_toml(file), overrides), str(file))
