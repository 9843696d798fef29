"""open_clip's plain CLIP of random weights, and its checkpoint as open_clip and as Hugging Face publish it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.trainer.torchvision_stub import oracle

VISION = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 32, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 3}
_HUGGING_FACE = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_ROOTS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "logit_scale": "logit_scale",
}
_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}


def build_theirs(quick_gelu: bool, vision: dict[str, Any] | None = None, embed_dim: int = 32) -> Any:
    """open_clip's own module in evaluation mode, or a skip where it is not installed."""
    torch.manual_seed(1)
    make = oracle("open_clip.model").CLIP
    model = make(embed_dim=embed_dim, vision_cfg=vision or VISION, text_cfg=TEXT, quick_gelu=quick_gelu).eval()
    with torch.no_grad():  # norms and biases start at one and zero, which would hide where they belong
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def write_open_clip(model: Any, folder: Path, quick_gelu: bool, **vision: Any) -> None:
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    config = {"embed_dim": 32, "vision_cfg": VISION | vision, "text_cfg": TEXT} | (
        {"quick_gelu": True} if quick_gelu else {}
    )
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))


def write_hugging_face(model: Any, folder: Path, activation: str) -> None:
    folder.mkdir()
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        state |= _as_hugging_face(name, tensor)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    vision = {"num_attention_heads": VISION["width"] // VISION["head_width"], "hidden_act": activation}
    text = {"num_attention_heads": TEXT["heads"], "hidden_act": activation}
    (folder / "config.json").write_text(json.dumps({"vision_config": vision, "text_config": text}))


def _as_hugging_face(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name in _ROOTS:
        return {_ROOTS[name]: tensor}
    if name in ("visual.proj", "text_projection"):
        return {"visual_projection.weight" if name == "visual.proj" else "text_projection.weight": tensor.T}
    for theirs, hugging_face in _NORMS.items():
        if name.startswith(theirs):
            return {name.replace(theirs, hugging_face): tensor}
    tower = "vision_model" if name.startswith("visual.") else "text_model"
    number, _, rest = name.partition("resblocks.")[2].partition(".")
    prefix = f"{tower}.encoder.layers.{number}."
    if rest.startswith("attn.in_proj_"):
        leaf = rest.removeprefix("attn.in_proj_")
        return {f"{prefix}self_attn.{key}_proj.{leaf}": part for key, part in zip("qkv", tensor.chunk(3), strict=True)}
    theirs = next(theirs for theirs in _HUGGING_FACE if rest.startswith(theirs))
    return {prefix + rest.replace(theirs, _HUGGING_FACE[theirs]): tensor}
