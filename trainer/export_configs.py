"""The configuration files by which open_clip, timm and transformers build a model around exported weights.

| layout | file | who reads it |
|---|---|---|
| open_clip | open_clip_config.json | `open_clip.create_model("local-dir:FOLDER")` |
| timm | config.json | `timm.create_model("local-dir:FOLDER")`, transformers' `AutoModel` (the image tower) |
| huggingface | config.json | transformers' `AutoModel` with BAAI's code for EVA-CLIP-8B and -18B |

A model that a library has no classes for gets no file: open_clip builds only the towers that timm has a name for, and
a JSON file cannot tell timm to take RMSNorm.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from trainer.data.transforms import MEAN, STD
from trainer.models import configs
from trainer.models.config import ClipConfig, TextConfig, VisionConfig

_TIMM_NAMES = {
    "eva01-g-14": "eva_giant_patch14_224",
    "eva02-b-16": "eva02_base_patch16_clip_224",
    "eva02-l-14": "eva02_large_patch14_clip_224",
    "eva02-l-14-336": "eva02_large_patch14_clip_336",
    "eva02-e-14": "eva02_enormous_patch14_clip_224",
}
"""Our model → timm's name of its image tower."""
_BAAI_CODE = "BAAI/EVA-CLIP-8B"
"""The repository whose modules transformers fetches with trust_remote_code; they serve 18B too."""


def describe_for(layout: str, config: ClipConfig, logit_bias: float | None) -> tuple[str, dict[str, Any]] | None:
    """The name and the content of the file that belongs beside weights in `layout`, or None where none would work.

    Args:
        layout: one of `trainer.layouts.LAYOUTS`.
        logit_bias: SigLIP's bias, None without one.
    """
    if layout == "open_clip" and find_timm_name(config.vision):
        return "open_clip_config.json", _describe_for_open_clip(config, logit_bias)
    if layout == "timm" and config.vision.norm == "layer" and config.vision.bias:
        return "config.json", _describe_for_timm(config.vision, config.embed_dim)
    if layout == "huggingface" and not config.vision.bias:
        return "config.json", _describe_for_transformers(config)
    return None


def find_timm_name(vision: VisionConfig) -> str | None:
    """timm's name of an image tower of exactly these sizes, whatever training drops; None without one."""
    wanted = dataclasses.replace(vision, drop_path=0.0, patch_drop=0.0)
    for ours, theirs in _TIMM_NAMES.items():
        if dataclasses.replace(configs.config(ours).vision, drop_path=0.0) == wanted:
            return theirs
    return None


def _describe_for_open_clip(config: ClipConfig, logit_bias: float | None) -> dict[str, Any]:
    text = config.text
    model: dict[str, Any] = {
        "embed_dim": config.embed_dim,
        "vision_cfg": {
            "image_size": config.vision.image_size,
            "timm_model_name": find_timm_name(config.vision),
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": None,
        },
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
        "custom_text": True,
    }
    if logit_bias is not None:
        model["init_logit_bias"] = logit_bias
    preprocessing = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    return {"model_cfg": model, "preprocess_cfg": preprocessing}


def _describe_for_timm(vision: VisionConfig, embed_dim: int) -> dict[str, Any]:
    style = "eva02_base_patch16_clip_224" if vision.swiglu else "eva_giant_patch14_224"
    sizes: dict[str, Any] = {
        "img_size": vision.image_size,
        "patch_size": vision.patch_size,
        "embed_dim": vision.width,
        "depth": vision.layers,
        "num_heads": vision.heads,
        "mlp_ratio": (vision.hidden_width + 0.5) / vision.width,  # timm cuts the product to a whole number
        "swiglu_mlp": vision.swiglu,
        "scale_mlp": vision.sub_norm,
        "scale_attn_inner": vision.sub_norm,
        "use_rot_pos_emb": vision.rope_grid > 0,
        "use_post_norm": vision.post_norm,
        "global_pool": "token",
    }
    if vision.rope_grid:
        sizes["ref_feat_shape"] = [vision.rope_grid, vision.rope_grid]
    return {
        "architecture": find_timm_name(vision) or style,
        "num_classes": embed_dim,
        "num_features": vision.width,
        "global_pool": "token",
        "model_args": sizes,
        "pretrained_cfg": {
            "input_size": [3, vision.image_size, vision.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": MEAN,
            "std": STD,
            "num_classes": embed_dim,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def _describe_for_transformers(config: ClipConfig) -> dict[str, Any]:
    return {
        "architectures": ["EvaCLIPModel"],
        "auto_map": {
            "AutoConfig": f"{_BAAI_CODE}--configuration_evaclip.EvaCLIPConfig",
            "AutoModel": f"{_BAAI_CODE}--modeling_evaclip.EvaCLIPModel",
        },
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": -math.log(config.temperature),
        "text_config": _describe_text(config.text, config.embed_dim),
        "vision_config": _describe_vision(config.vision, config.embed_dim),
    }


def _describe_text(text: TextConfig, embed_dim: int) -> dict[str, Any]:
    return {
        "model_type": "clip_text_model",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context_length,
        **_describe_blocks(text.width, text.hidden_width, text.layers, text.heads, text.norm_eps, has_bias=True),
        "projection_dim": embed_dim,
        "use_rms_norm": False,
        "post_layernorm": False,
    }


def _describe_vision(vision: VisionConfig, embed_dim: int) -> dict[str, Any]:
    blocks = (vision.width, vision.hidden_width, vision.layers, vision.heads, vision.norm_eps)
    return {
        "model_type": "clip_vision_model",
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        **_describe_blocks(*blocks, has_bias=vision.bias),
        "projection_dim": embed_dim,
        "use_rms_norm": vision.norm == "rms",
        "post_layernorm": vision.post_norm,
    }


def _describe_blocks(
    width: int, hidden_width: int, layers: int, heads: int, eps: float, *, has_bias: bool
) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": hidden_width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "layer_norm_eps": eps,
        **{f"{part}_bias": has_bias for part in "qkv"},
    }
