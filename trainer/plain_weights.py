"""Checkpoints of plain CLIP: OpenAI's archives, and folders as open_clip and Hugging Face publish them.

Widths and depths are read off the tensors. What no tensor tells, the number of heads and the activation, stands in
`open_clip_config.json` or `config.json`; OpenAI's own archives have 64 channels a head and QuickGELU.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curation.errors import UserError
from trainer import torchscript
from trainer.data.transforms import MEAN, STD
from trainer.models.plain_clip import Activation, PlainClip, PlainClipConfig, TowerShape
from trainer.weight_files import WeightFile

HEAD_WIDTH = 64
CONFIGS = ("open_clip_config.json", "config.json")
_BLOCK = re.compile(r"(visual|text)\.transformer\.resblocks\.(\d+)\.")
_UNUSED = re.compile(r"position_ids|attn_mask|input_resolution|context_length|vocab_size|logit_bias")
_VISION_KEYS = frozenset({"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"})
_TEXT_KEYS = frozenset({"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"})


class _Told(NamedTuple):
    """What the file beside the weights says."""

    vision_heads: int | None
    text_heads: int | None
    activation: Activation


def is_plain_clip(file: WeightFile) -> bool:
    """Whether the names of the tensors are those of a plain CLIP with ViT towers."""
    return "visual.class_embedding" in file.shapes or "vision_model.pre_layrnorm.weight" in file.shapes


def load_plain_clip(file: WeightFile, dtype: torch.dtype = torch.float32) -> PlainClip:
    """The model in `file`, in evaluation mode on the CPU. Raises UserError as `infer_plain_config`."""
    config, readers = _plan(file)
    with torch.device("meta"):
        model = PlainClip(config)
    model.load_state_dict({name: readers[name]().to(dtype) for name in model.state_dict()}, assign=True)
    return model.eval()


def infer_plain_config(file: WeightFile) -> PlainClipConfig:
    """What model `file` holds, by names and shapes alone.

    Raises:
        UserError: when its activation is not told, it is a model of another kind, or tensors are missing or left over.
    """
    return _plan(file)[0]


def _plan(file: WeightFile) -> tuple[PlainClipConfig, dict[str, Callable[[], Tensor]]]:
    told = _read_config(file)
    shapes, readers = _translate_names(file)
    try:
        config = _read_shapes(shapes, told)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{file.path} is no whole CLIP with two ViT towers: it has no {error}.") from error
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in PlainClip(config).state_dict().items()}
    for name in sorted({*wanted, *shapes}):
        found = shapes.get(name)
        if found != wanted.get(name) and not (name == "logit_scale" and found in ((), (1,))):
            raise UserError(
                f"{file.path} is of another model: {name} is {_say(found)}, and has to be {_say(wanted.get(name))}."
            )
    readers["logit_scale"] = partial(_read_scale, readers["logit_scale"])
    return config, readers


def _say(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _read_scale(read: Callable[[], Tensor]) -> Tensor:
    return read().reshape(())


def _read_shapes(shapes: Mapping[str, tuple[int, ...]], told: _Told) -> PlainClipConfig:
    vision_width, _, patch_size, _ = shapes["visual.conv1.weight"]
    grid = math.isqrt(shapes["visual.positional_embedding"][0] - 1)
    vocab_size, text_width = shapes["text.token_embedding.weight"]
    return PlainClipConfig(
        vision=_read_tower("visual", vision_width, told.vision_heads, shapes),
        text=_read_tower("text", text_width, told.text_heads, shapes),
        patch_size=patch_size,
        image_size=grid * patch_size,
        context_length=shapes["text.positional_embedding"][0],
        vocab_size=vocab_size,
        embed_dim=shapes["text.text_projection"][1],
        activation=told.activation,
    )


def _read_tower(tower: str, width: int, heads: int | None, shapes: Mapping[str, tuple[int, ...]]) -> TowerShape:
    layers = {match[2] for name in shapes if (match := _BLOCK.match(name)) and match[1] == tower}
    hidden_width = shapes[f"{tower}.transformer.resblocks.0.mlp.c_fc.weight"][0]
    return TowerShape(
        layers=len(layers), width=width, heads=heads or max(1, width // HEAD_WIDTH), hidden_width=hidden_width
    )


def _read_config(file: WeightFile) -> _Told:
    """What stands beside the weights. Raises UserError when nothing does, or it is a model of another kind."""
    is_hugging_face = "vision_model.pre_layrnorm.weight" in file.shapes
    if file.path.is_file():
        if not is_hugging_face and torchscript.is_torchscript(file.path):
            return _Told(None, None, "quick_gelu")
        raise UserError(
            f"{file.path} does not say which activation it was trained with: put it into a folder with the "
            f"{CONFIGS[is_hugging_face]} that it was published with, and name the folder."
        )
    config = file.path / CONFIGS[is_hugging_face]
    try:
        told = json.loads(config.read_bytes())
        return _read_hugging_face(told) if is_hugging_face else _read_open_clip(told)
    except (OSError, RecursionError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{config} does not describe a CLIP with two ViT towers ({error}): fetch it again.") from error


def _read_open_clip(told: Mapping[str, Any]) -> _Told:
    model = told.get("model_cfg", told)
    vision, text = model["vision_cfg"], model["text_cfg"]
    other = sorted((set(vision) - _VISION_KEYS) | (set(text) - _TEXT_KEYS))
    if other:
        raise ValueError(f"it sets {other[0]}, which this loader does not know")
    pixels = told.get("preprocess_cfg", {})
    for name, ours in (("mean", MEAN), ("std", STD)):
        if name in pixels and any(abs(a - b) > 1e-4 for a, b in zip(pixels[name], ours, strict=True)):
            raise ValueError(f"its pixels have another {name} than CLIP's")
    heads = int(vision["width"]) // int(vision.get("head_width", HEAD_WIDTH))
    return _Told(heads, int(text["heads"]), "quick_gelu" if model.get("quick_gelu") else "gelu")


def _read_hugging_face(told: Mapping[str, Any]) -> _Told:
    vision, text = told.get("vision_config", {}), told.get("text_config", {})
    acts = {part.get("hidden_act", "quick_gelu") for part in (vision, text)}
    if len(acts) > 1 or not acts <= {"gelu", "quick_gelu"}:
        raise ValueError(f"its activation is {' and '.join(sorted(acts))}")
    return _Told(vision.get("num_attention_heads", 12), text.get("num_attention_heads", 8), acts.pop())


def _translate_names(file: WeightFile) -> tuple[dict[str, tuple[int, ...]], dict[str, Callable[[], Tensor]]]:
    """Shapes and readers by open_clip's names, which are those of `PlainClip`."""
    shapes = {name: shape for name, shape in file.shapes.items() if not _UNUSED.search(name)}
    if "vision_model.pre_layrnorm.weight" not in shapes:
        return shapes, {name: partial(file.tensor, name) for name in shapes}
    renamed: dict[str, tuple[int, ...]] = {}
    readers: dict[str, Callable[[], Tensor]] = {}
    for name, shape in shapes.items():
        ours = _rename(name)
        if ".q_proj." in name:  # keys and values are read with the queries
            parts = [name.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
            renamed[ours], readers[ours] = (3 * shape[0], *shape[1:]), partial(_join, file, parts)
        elif name in ("visual_projection.weight", "text_projection.weight"):
            renamed[ours], readers[ours] = shape[::-1], partial(_transpose, file, name)
        elif ".k_proj." not in name and ".v_proj." not in name:
            renamed[ours], readers[ours] = shape, partial(file.tensor, name)
    return renamed, readers


def _join(file: WeightFile, parts: list[str]) -> Tensor:
    return torch.cat([file.tensor(name) for name in parts])


def _transpose(file: WeightFile, name: str) -> Tensor:
    return file.tensor(name).T.contiguous()


_RENAMES = (
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding", "visual.conv1"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm", "visual.ln_pre"),
    ("vision_model.post_layernorm", "visual.ln_post"),
    ("visual_projection.weight", "visual.proj"),
    ("text_model.embeddings.token_embedding", "text.token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "text.positional_embedding"),
    ("text_model.final_layer_norm", "text.ln_final"),
    ("text_projection.weight", "text.text_projection"),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("text_model.encoder.layers.", "text.transformer.resblocks."),
    (".self_attn.q_proj.", ".attn.in_proj_"),
    (".self_attn.out_proj", ".attn.out_proj"),
    (".layer_norm1", ".ln_1"),
    (".layer_norm2", ".ln_2"),
    (".mlp.fc1", ".mlp.c_fc"),
    (".mlp.fc2", ".mlp.c_proj"),
)


def _rename(name: str) -> str:
    for theirs, ours in _RENAMES:
        name = name.replace(theirs, ours)
    return name
