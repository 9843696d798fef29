"""Contrastive training as the loop sees it: which module, which parameter groups, one step, what is exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import models, optim, weights
from trainer.config import Config
from trainer.data.feed import Batch
from trainer.models import flops
from trainer.models.clip import Clip
from trainer.models.compiling import compile_blocks
from trainer.models.config import ClipConfig
from trainer.models.fusing import set_mode
from trainer.objectives.contrastive_model import ContrastiveModel, set_bias, set_temperature
from trainer.objectives.contrastive_step import contrastive_step
from trainer.objectives.protocol import Judge, Seeder
from trainer.partitions import read_master
from trainer.weight_files import WeightFile

_CLIP = "clip."


class Contrastive:
    """Train a `Clip` on pairs."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def clip_config(self, image_size: int | None) -> ClipConfig:
        """The model's numbers at a resolution."""
        changes = {} if self.config.model.drop_path is None else {"vision": {"drop_path": self.config.model.drop_path}}
        return models.config(self.config.model.sized_name, image_size=image_size, **changes)

    def check_files(self) -> None:
        """Raise UserError when a checkpoint that [model] names is of another model; no tensor is read."""
        named = {"": self.config.model.weights, "visual": self.config.model.image_weights}
        named["text"] = self.config.model.text_weights
        if not any(named.values()):
            return
        with torch.device("meta"):
            clip = Clip(self.clip_config(self.config.phases[0].image_size or self.config.model.image_size))
        for tower, path in named.items():
            if path:
                weights.fill_model(clip, WeightFile(Path(path)), tower=tower, check_only=True)

    def build(self, image_size: int | None, weights_file: Path | None) -> ContrastiveModel:
        """The model, filled from `weights_file` or from what [model] names."""
        model = self.config.model
        clip = Clip(self.clip_config(image_size))
        path = weights_file or (Path(model.weights) if model.weights else None)
        whole = WeightFile(path) if path else None
        if whole:
            weights.fill_model(clip, whole)
        image, text = (Path(path) if path else None for path in (model.image_weights, model.text_weights))
        if not weights_file:
            weights.fill_towers(clip, image=image, text=text)
            set_temperature(clip, self.config.train, pretrained=whole is not None)
        clip.set_grad_checkpointing(model.grad_checkpointing)
        set_mode(model.fuse)
        if model.compile:
            compile_blocks(clip.visual, clip.text)
        towers = ((clip.visual, model.lock_image), (clip.text, model.lock_text))
        module = ContrastiveModel(clip, self.config.train, [tower for tower, is_locked in towers if is_locked])
        if whole:
            set_bias(module, whole)
        return module

    def list_readers(self, module: ContrastiveModel, weights_file: Path) -> dict[str, Callable[[], Tensor]]:
        """Of the CLIP's parameters and SigLIP's bias."""
        file = WeightFile(weights_file)
        readers = {_CLIP + name: read for name, read in weights.list_readers(module.clip, file).items()}
        return {**readers, weights.LOGIT_BIAS: partial(file.tensor, weights.LOGIT_BIAS)}

    def parameter_groups(self, module: ContrastiveModel) -> list[dict[str, Any]]:
        """Rates by tower and depth; the temperature by itself, under its bound."""
        named = dict(module.named_parameters())
        return optim.parameter_groups(named, module.layers(), self.config.optim, module.upper_bounds())

    def follow_masters(self, engine: Any) -> None:
        """Compute with the float32 masters of temperature and bias, which bf16 and fp16 would round."""
        if self.config.train.precision == "fp32":
            return
        module: ContrastiveModel = engine.module
        for name, parameter in module.scalars().items():
            master = read_master(engine, name, parameter)
            if master is not None:
                module.masters[name] = master.detach().clone()

    def set_patch_drop(self, module: ContrastiveModel, share: float) -> None:
        """Drop this share of the patches in every training forward that follows."""
        module.clip.set_patch_drop(share)

    def step(self, engine: Any, batches: list[Batch], seed: Seeder, is_sound: Judge) -> tuple[Tensor, Tensor | None]:
        """See `trainer.objectives.contrastive_step.contrastive_step`."""
        train = self.config.train
        return contrastive_step(engine, batches, train.loss, seed, is_sound, train.loss_chunk_rows)

    def sample_flops(self, image_size: int | None, patch_drop: float, batch: Batch) -> float:
        """Of one pair, with captions as long as this batch's are after trimming."""
        pixels = batch["pixels"]
        frames = pixels.shape[1] if pixels.dim() == 5 else 1
        return flops.step_flops(self.clip_config(image_size), patch_drop, batch["tokens"].shape[1], frames)

    def export(self, tensors: dict[str, Tensor], image_size: int | None, path: Path) -> None:
        """Write the CLIP, and SigLIP's bias beside it, in our own layout."""
        weights.write_tensors(strip_prefix(tensors), self.clip_config(image_size), path)

    def write_outline(self, path: Path) -> None:
        """Write the names and shapes of what `export` will write at the end (`weights.write_outline`)."""
        config = self.clip_config(self.config.phases[-1].image_size or self.config.model.image_size)
        with torch.device("meta"):
            module = ContrastiveModel(Clip(config), self.config.train)
        weights.write_outline(strip_prefix(module.state_dict()), config, path)


def strip_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `ContrastiveModel` by the names that a `Clip` has for them."""
    return {name.removeprefix(_CLIP): tensor for name, tensor in tensors.items()}
