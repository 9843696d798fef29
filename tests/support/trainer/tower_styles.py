"""Every style of tower, shrunk: our configuration, and the same tower out of timm to compare with."""

import math
from functools import partial
from typing import Any

import torch
from torch import nn

from tests.support.trainer.torchvision_stub import oracle
from trainer import models
from trainer.models.config import ClipConfig

# The smallest of each style: its own head width, norms and ratios with few heads and layers.
TEXT = {"layers": 2, "width": 32, "heads": 2}
SHRUNK: dict[str, dict[str, Any]] = {
    "eva01-g-14": {"layers": 3, "width": 176, "hidden_width": 768},
    "eva02-b-16": {"layers": 3, "width": 128, "hidden_width": 341},
    "eva02-l-14-336": {"layers": 3, "width": 128, "hidden_width": 341},
    "eva02-e-14": {"layers": 3, "width": 224, "hidden_width": 1920},
    "eva-clip-8b": {"layers": 3, "width": 256, "hidden_width": 1280},
    "eva-clip-18b": {"layers": 3, "width": 256, "hidden_width": 1280},
}
_TIMM_NAMES = {
    "eva01-g-14": "eva_giant_patch14_224",
    "eva02-b-16": "eva02_base_patch16_clip_224",
    "eva02-l-14-336": "eva02_large_patch14_clip_336",
    "eva02-e-14": "eva02_enormous_patch14_clip_224",
}


def shrunk(name: str, **vision: Any) -> ClipConfig:
    """The configuration of a style, with further changes of the image tower."""
    return models.config(name, embed_dim=64, vision={**SHRUNK[name], **vision}, text=TEXT)


def timm_tower(name: str) -> nn.Module:
    """The same image tower as timm makes it, on random weights, evaluating."""
    config = shrunk(name)
    vision = config.vision
    sizes = {
        "embed_dim": vision.width,
        "depth": vision.layers,
        "num_heads": vision.heads,
        "mlp_ratio": (vision.hidden_width + 0.5) / vision.width,
        "num_classes": config.embed_dim,
        "global_pool": "token",
    }
    timm = oracle("timm")
    torch.manual_seed(0)
    if name in _TIMM_NAMES:
        tower = timm.create_model(_TIMM_NAMES[name], **sizes)
    else:
        norm = partial(timm.layers.RmsNorm, eps=1e-6)
        post_norm = name == "eva-clip-18b"
        tower = oracle("timm.models.eva").Eva(
            patch_size=14, qkv_bias=False, norm_layer=norm, use_post_norm=post_norm, **sizes
        )
    randomise(tower)
    if not vision.bias:
        nn.init.zeros_(tower.head.bias)
    evaluating: nn.Module = tower.eval()
    return evaluating


def randomise(module: nn.Module) -> None:
    """Draw every parameter anew, gains and biases too, so that nothing hides behind a one or a zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = "norm" in name and name.endswith("weight")
            fan_in = math.prod(parameter.shape[1:]) if parameter.dim() > 1 else 400
            parameter.copy_(1 + 0.1 * noise if is_gain else noise / math.sqrt(2 * fan_in))
