"""A tower starts with the values that EVA's code draws: EVA-02's where it is pre-trained with sub-LN, else BEiT's."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.support.trainer.tower_styles import shrunk
from trainer import models
from trainer.models.clip import Clip
from trainer.models.config import ClipConfig
from trainer.models.mim import MaskedImageModel

SUB_NORM = "eva02-b-16"


def wide(name: str) -> ClipConfig:
    """A small depth at widths whose standard deviations are known to a few per cent."""
    config = shrunk(name)
    return replace(config, vision=replace(config.vision, width=256, head_width=64, hidden_width=680, layers=3))


def near(weight: Tensor, std: float) -> None:
    assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert abs(weight.mean().item()) < 0.03 * std


def test_a_student_with_sub_ln_starts_as_eva_02_does() -> None:
    """Xavier's values, and √(log 2·depth) times as large for values, outputs and the whole MLP, in each block alike."""
    torch.manual_seed(0)
    student = MaskedImageModel(wide(SUB_NORM), teacher_dim=128)
    gain = math.sqrt(math.log(2 * 3))
    square, mlp = math.sqrt(2 / (256 + 256)), math.sqrt(2 / (256 + 680))
    assert len(student.visual.blocks) == 3
    for block in student.visual.blocks:
        query, key, value = block.attn.qkv.weight.chunk(3)
        near(query, square)
        near(key, square)
        near(value, gain * square)
        near(block.attn.proj.weight, gain * square)
        gate, up = block.mlp.w12.weight.chunk(2)
        near(gate, gain * mlp)
        near(up, gain * mlp)
        near(block.mlp.w3.weight, gain * mlp)
    patch = student.visual.patch_embed.weight
    near(patch, math.sqrt(2 / (256 + patch[0].numel())))
    near(student.lm_head.weight, math.sqrt(2 / (256 + 128)))


@pytest.mark.parametrize("name", ["eva-clip-18b", "eva01-g-14"])
def test_a_student_without_sub_ln_starts_as_beit_does(name: str) -> None:
    torch.manual_seed(0)
    student = MaskedImageModel(wide(name), teacher_dim=128)
    for number, block in enumerate(student.visual.blocks, 1):
        near(block.attn.qkv.weight, 0.02)
        near(block.attn.proj.weight, 0.02 / math.sqrt(2 * number))
        near(block.mlp.fc1.weight, 0.02)
        near(block.mlp.fc2.weight, 0.02 / math.sqrt(2 * number))
    near(student.lm_head.weight, 0.02)


def test_a_clip_starts_as_beit_does_with_sub_ln_too() -> None:
    """Its image tower comes from a pre-trained one; what a CLIP drew for one seed before is what it draws now."""
    torch.manual_seed(0)
    clip = Clip(wide(SUB_NORM))
    for number, block in enumerate(clip.visual.blocks, 1):
        near(block.attn.qkv.weight, 0.02)
        near(block.mlp.w12.weight, 0.02)
        near(block.mlp.w3.weight, 0.02 / math.sqrt(2 * number))


def test_every_weight_of_a_student_is_drawn() -> None:
    """Nothing keeps what `torch.empty` found in memory: two draws of one seed agree, of two seeds they do not."""

    def draw(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return MaskedImageModel(models.config("debug"), teacher_dim=16).state_dict()

    first, again, other = draw(0), draw(0), draw(1)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        assert tensor.dim() == 1 or not torch.equal(tensor, other[name]), name
