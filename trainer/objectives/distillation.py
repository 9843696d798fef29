"""Masked image modelling as the loop sees it: a student learns a CLIP's features of the patches that it cannot see.

EVA's objective (arXiv 2211.07636, section 2; EVA-02/asuka/engine_for_pretraining.py): minus the cosine between the
student's prediction and the teacher's projected feature, in mean over the hidden patches. The teacher sees everything,
is frozen, and is sharded over the ranks where the student is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curation.errors import UserError
from trainer import models, optim, weights, zero
from trainer.config import Config, DistillConfig
from trainer.data.feed import Batch
from trainer.models import flops
from trainer.models.clip import Clip, LayerGroup
from trainer.models.compiling import compile_blocks
from trainer.models.config import ClipConfig
from trainer.models.fusing import set_mode
from trainer.models.mim import MaskedImageModel
from trainer.models.vision import VisionTower
from trainer.objectives.masking import draw_block_masks
from trainer.objectives.protocol import Judge, Seeder
from trainer.precision import DTYPES
from trainer.weight_files import WeightFile

logger = logging.getLogger("trainer")


def cosine_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """`[n, d]` each to minus the mean cosine, `[]`, float32."""
    return -F.cosine_similarity(predicted.float(), wanted.float(), dim=-1).mean()


class Teacher(nn.Module):
    """A CLIP's image tower whose output is every patch in the shared space."""

    def __init__(self, visual: VisionTower) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> Tensor:
        """`[b, 3, s, s]` of any size to `[b, num_patches, embed_dim]`, not normalised; resized where it has another."""
        side = self.visual.config.image_size
        if pixels.shape[-1] != side:
            pixels = F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)
        features: Tensor = self.visual(pixels.to(self.visual.cls_token.dtype), output="patches")
        return features


class Distillation:
    """Train a `MaskedImageModel` on a frozen CLIP's features."""

    def __init__(self, config: Config) -> None:
        assert config.distill is not None, "trainer.distill has refused it"
        self.config, self.distill = config, config.distill
        self._teacher: Any = None
        self._teacher_size = 0

    def student_config(self, image_size: int | None) -> ClipConfig:
        """The student's numbers at a resolution."""
        changes = {} if self.config.model.drop_path is None else {"vision": {"drop_path": self.config.model.drop_path}}
        return models.config(self.config.model.sized_name, image_size=image_size, **changes)

    def check_files(self) -> None:
        """Raise UserError for settings and files that cannot work; no tensor is read."""
        if any(phase.patch_drop for phase in self.config.phases):
            raise UserError("patch_drop leaves out patches that the student has to predict: remove it from [[phases]].")
        if self.config.model.text_weights:
            raise UserError("model.text_weights names a text tower, and masked image modelling has none.")
        if not self.distill.teacher_weights:
            logger.warning("distill.teacher_weights is empty: the teacher is random, which only a test wants")
        for phase in self.config.phases:
            student = self.student_config(phase.image_size or self.config.model.image_size)
            teacher = teacher_config(self.distill, student)
            with torch.device("meta"):
                self._fill_student(MaskedImageModel(student, teacher.embed_dim), check_only=True)
                if self.distill.teacher_weights:
                    fill_teacher(Clip(teacher), Path(self.distill.teacher_weights), check_only=True)

    def build(self, image_size: int | None, weights_file: Path | None) -> MaskedImageModel:
        """The student, filled from `weights_file` or from what [model] names."""
        student = self.student_config(image_size)
        module = MaskedImageModel(student, teacher_config(self.distill, student).embed_dim)
        if weights_file:
            weights.fill_model(module, WeightFile(weights_file))
        else:
            self._fill_student(module)
        module.set_grad_checkpointing(self.config.model.grad_checkpointing)
        set_mode(self.config.model.fuse)
        if self.config.model.compile:
            compile_blocks(module.visual)
        return module

    def list_readers(self, module: MaskedImageModel, weights_file: Path) -> dict[str, Callable[[], Tensor]]:
        """Of the student's parameters."""
        return weights.list_readers(module, WeightFile(weights_file))

    def parameter_groups(self, module: MaskedImageModel) -> list[dict[str, Any]]:
        """Everything at the image tower's rate; the mask token and the head stand above the last layer."""
        layers = {
            name: layer if layer.tower else LayerGroup("visual", 0, 0, layer.decay)
            for name, layer in module.layer_groups().items()
        }
        return optim.parameter_groups(dict(module.named_parameters()), layers, self.config.optim)

    def follow_masters(self, engine: Any) -> None:
        """There is nothing that the model's precision would round too coarsely."""

    def set_patch_drop(self, module: MaskedImageModel, share: float) -> None:
        """Never any: `check_files` refuses it."""
        assert share == 0

    def step(self, engine: Any, batches: list[Batch], seed: Seeder, is_sound: Judge) -> tuple[Tensor, Tensor | None]:
        """Forward and backward of this rank's micro-batches; an unsound loss leaves the step without a backward.

        Several micro-batches run forward twice, the first time for the loss that is judged.
        """
        inputs = [self._prepare_inputs(engine, batch, seed, index) for index, batch in enumerate(batches)]
        if len(inputs) == 1:
            loss = self._loss(engine, *inputs[0])
            if is_sound(loss.detach()):
                engine.set_gradient_accumulation_boundary(True)
                engine.backward(loss)
            return loss.detach(), None
        with torch.no_grad():
            losses = []
            for index, arguments in enumerate(inputs):
                seed(index)
                losses.append(self._loss(engine, *arguments))
        loss = torch.stack(losses).mean()
        if is_sound(loss):
            for index, arguments in enumerate(inputs):
                seed(index)
                engine.set_gradient_accumulation_boundary(index == len(inputs) - 1)
                engine.backward(self._loss(engine, *arguments) / len(inputs))
        return loss, None

    def predict(self, engine: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The student's predictions and the teacher's features of patches that are drawn to be hidden, `[n, d]` each.

        Each picture has as many, one picture after the other.
        """
        mask, wanted = self._hide_patches(engine, pixels)
        return engine(pixels, mask), wanted

    def sample_flops(self, image_size: int | None, patch_drop: float, batch: Batch) -> float:
        """Of one image: three forwards of the student and one of its teacher, every block in full."""
        student = self.student_config(image_size)
        teacher = flops.image_flops(teacher_config(self.distill, student), published=True)
        return 3 * flops.image_flops(student, published=True) + teacher

    def export(self, tensors: dict[str, Tensor], image_size: int | None, path: Path) -> None:
        """Write the student in BAAI's layout of EVA, which `model.image_weights` of contrastive training reads."""
        config = self.student_config(image_size)
        weights.write_tensors(weights.export_state(tensors, config, "mim"), config, path)

    def write_outline(self, path: Path) -> None:
        """Write the names and shapes of what `export` will write at the end (`weights.write_outline`)."""
        config = self.student_config(self.config.phases[-1].image_size or self.config.model.image_size)
        with torch.device("meta"):
            module = MaskedImageModel(config, teacher_config(self.distill, config).embed_dim)
        weights.write_outline(weights.export_state(module.state_dict(), config, "mim"), config, path)

    def _prepare_inputs(self, engine: Any, batch: Batch, seed: Seeder, index: int) -> tuple[Tensor, ...]:
        """Pixels, mask and the teacher's features of the hidden patches; leaves the generator for the forward."""
        seed(index)
        pixels: Tensor = batch["pixels"]
        mirrored = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < self.distill.flip_share
        pixels = torch.where(mirrored, pixels.flip(-1), pixels)
        return pixels, *self._hide_patches(engine, pixels)

    def _hide_patches(self, engine: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """A mask for each picture, and the teacher's features of what it hides."""
        student = engine.module.config
        mask = draw_block_masks(len(pixels), student.vision.grid, self.distill.mask_share, pixels.device)
        with torch.no_grad():
            features = self._get_teacher(student, pixels.device)(pixels)
        return mask, features[mask]

    def _loss(self, engine: Any, pixels: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
        return cosine_loss(engine(pixels, mask), wanted)

    def _fill_student(self, module: MaskedImageModel, *, check_only: bool = False) -> None:
        model = self.config.model
        for path, tower in ((model.weights, ""), (model.image_weights, "visual")):
            if path:
                weights.fill_model(module, WeightFile(Path(path)), tower=tower, check_only=check_only)

    def _get_teacher(self, student: ClipConfig, device: torch.device) -> Any:
        """The teacher for the student's resolution, made at its first use: outside the sharded building of modules."""
        if self._teacher is None or self._teacher_size != student.vision.image_size:
            if self._teacher is not None and hasattr(self._teacher, "destroy"):
                self._teacher.destroy()
            self._teacher = load_teacher(self.config, self.distill, student, device)
            self._teacher_size = student.vision.image_size
        return self._teacher


def teacher_config(distill: DistillConfig, student: ClipConfig) -> ClipConfig:
    """The teacher's numbers at the resolution where it has as many patches as the student."""
    teacher = models.config(distill.teacher)
    return teacher.override(image_size=student.vision.grid * teacher.vision.patch_size)


def fill_teacher(clip: Clip, path: Path, *, dtype: torch.dtype | None = None, check_only: bool = False) -> None:
    """Fill the image tower. Raises UserError when the file has no projection into a CLIP's space."""
    report = weights.fill_model(clip, WeightFile(path), tower="visual", dtype=dtype, check_only=check_only)
    if report.fresh:
        raise UserError(f"{path} is no CLIP of the teacher's kind: it has no {report.fresh[0]} of that shape.")


def load_teacher(config: Config, distill: DistillConfig, student: ClipConfig, device: torch.device) -> Any:
    """The frozen teacher on `device`, sharded over the ranks at ZeRO stage 3; every rank has to call this."""
    sharded, settings = config.zero.stage == 3, zero.make_frozen_config(config)
    path, dtype = distill.teacher_weights, DTYPES[config.train.precision]
    on_meta = bool(path) and not sharded
    with torch.random.fork_rng(), torch.device("meta") if on_meta else zero.shard_while_building(config, settings):
        torch.manual_seed(0)
        clip = Clip(teacher_config(distill, student))
    if path:
        fill_teacher(clip, Path(path), dtype=dtype)
    teacher = Teacher(clip.visual).requires_grad_(False).eval()
    if sharded:
        return zero.make_frozen_engine(teacher, settings)
    return teacher.to(device=device, dtype=dtype)
