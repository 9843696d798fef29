"""State dictionaries in other makers' layouts, written by hand from the names in their code."""

import re

import torch
from torch import Tensor

from tests.support.trainer.tower_styles import randomise
from trainer.models.clip import Clip
from trainer.models.config import ClipConfig

State = dict[str, Tensor]


def random_model(config: ClipConfig) -> Clip:
    """A model without a one or a zero anywhere."""
    model = Clip(config)
    randomise(model)
    return model


def moved(state: State, renames: list[tuple[str, str]]) -> State:
    """Apply regular expressions to names, in order."""
    out = {}
    for name, tensor in state.items():
        for old, new in renames:
            name = re.sub(old, new, name)
        out[name] = tensor
    return out


def split(state: State, pattern: str, parts: list[str]) -> State:
    """Unstack every tensor whose name matches into parts named by replacing the match."""
    out = {}
    for name, tensor in state.items():
        if re.search(pattern, name):
            for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
                out[re.sub(pattern, part, name)] = piece.clone()
        else:
            out[name] = tensor
    return out


def baai_state(model: Clip) -> State:
    """The layout of BAAI's released files, by the list in EVA-CLIP's own model code."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if model.config.vision.sub_norm:
        state = split(state, r"(?<=visual\.blocks\.\d\.attn\.)qkv\.weight", [f"{p}_proj.weight" for p in "qkv"])
        state = split(state, r"mlp\.w12", ["mlp.w1", "mlp.w2"])
    state = moved(
        state,
        [
            (r"patch_embed\.", "patch_embed.proj."),
            (r"attn\.qkv\.([qv]_bias)", r"attn.\1"),
            (r"(visual.*)attn\.norm", r"\1attn.inner_attn_ln"),
            (r"(visual.*)mlp\.norm", r"\1mlp.ffn_ln"),
            (r"text\.blocks", "text.transformer.resblocks"),
            (r"(text.*)norm([12])", r"\1ln_\2"),
            (r"(text.*)attn\.qkv\.", r"\1attn.in_proj_"),
            (r"(text.*)attn\.proj", r"\1attn.out_proj"),
            (r"(text.*)mlp\.fc1", r"\1mlp.c_fc"),
            (r"(text.*)mlp\.fc2", r"\1mlp.c_proj"),
            (r"text\.norm", "text.ln_final"),
        ],
    )
    state["text.text_projection"] = state.pop("text.head.weight").T.contiguous()
    state["logit_scale"] = state["logit_scale"].squeeze()
    return state


def hugging_face_state(model: Clip) -> State:
    """The layout of BAAI/EVA-CLIP-8B and -18B, by the list in their modeling_evaclip.py."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = split(state, r"attn\.qkv\.(?=weight|bias)", [f"self_attn.{part}_proj." for part in "qkv"])
    state = moved(
        state,
        [
            (r"^visual\.head\.", "visual_projection."),
            (r"^text\.head\.", "text_projection."),
            (r"^visual\.", "vision_model."),
            (r"^text\.", "text_model."),
            (r"blocks\.", "encoder.layers."),
            (r"\.norm([12])\.", r".layer_norm\1."),
            (r"\.attn\.proj\.", ".self_attn.out_proj."),
            (r"vision_model\.norm", "vision_model.post_layernorm"),
            (r"text_model\.norm", "text_model.final_layer_norm"),
            (r"patch_embed\.", "embeddings.patch_embedding."),
            (r"vision_model\.cls_token", "vision_model.embeddings.class_embedding"),
            (r"vision_model\.pos_embed", "vision_model.embeddings.position_embedding.weight"),
            (r"text_model\.token_embedding", "text_model.embeddings.token_embedding"),
            (r"text_model\.positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ],
    )
    for name in ("vision_model.embeddings.class_embedding", "vision_model.embeddings.position_embedding.weight"):
        state[name] = state[name].squeeze()
    state["logit_scale"] = state["logit_scale"].squeeze()
    state["vision_model.embeddings.position_ids"] = torch.arange(257).reshape(1, -1)
    return state


def assert_same(model: Clip, expected: Clip) -> None:
    """Every parameter bit for bit."""
    found = model.state_dict()
    assert set(found) == set(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found[name], tensor), name
