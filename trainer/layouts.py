"""Parameter names in the checkpoint layouts the world has, each as a map from ours, readable in both directions.

Our modules fuse what is multiplied together, so one of our tensors may be several of theirs, stacked along axis 0.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from trainer.models.config import VisionConfig

Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Source:
    """Where a layout keeps one of our tensors: parts to stack, perhaps transposed or without axes of length 1."""

    names: tuple[str, ...]
    transpose: bool = False
    squeeze: bool = False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One naming; a map gives, for the start of our name inside a tower or a block, theirs.

    `fused_block` replaces `visual_block` for towers that this layout keeps as fused as we do: those without sub-LN.
    """

    name: str
    visual_prefix: str = "visual."
    visual_blocks: str = "blocks."
    visual: Names = field(default_factory=dict)
    visual_block: Names = field(default_factory=dict)
    fused_block: Names | None = None
    text_prefix: str = "text."
    text_blocks: str = "blocks."
    text: Names = field(default_factory=dict)
    text_block: Names = field(default_factory=dict)
    root: Names = field(default_factory=dict)
    transposed: Collection[str] = ()
    squeezed: Collection[str] = ()
    zero_head_bias: bool = False
    has_logit_bias: bool = False

    def source(self, name: str, vision: VisionConfig) -> Source:
        """Where this layout keeps our parameter `name` of a model with this image tower."""
        tower, _, rest = name.partition(".")
        if tower == "visual":
            fused = self.fused_block is not None and not vision.sub_norm
            block = self.fused_block if fused and self.fused_block is not None else self.visual_block
            names = _translate(rest, self.visual, block, self.visual_prefix, self.visual_blocks)
        elif tower == "text":
            names = _translate(rest, self.text, self.text_block, self.text_prefix, self.text_blocks)
        else:
            names = (name,)
        names = self.root.get(name, names)
        return Source(names, transpose=name in self.transposed, squeeze=name in self.squeezed)


def _translate(rest: str, outer: Names, inner: Names, prefix: str, blocks: str) -> tuple[str, ...]:
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", rest)
    if match:
        return tuple(f"{prefix}{blocks}{match[1]}.{name}" for name in _replace_start(match[2], inner))
    return tuple(prefix + name for name in _replace_start(rest, outer))


def _replace_start(name: str, names: Names) -> tuple[str, ...]:
    for ours, theirs in names.items():
        if name == ours or name.startswith(ours + "."):
            return tuple(their + name[len(ours) :] for their in theirs)
    return (name,)


_SPLIT_QKV = ("attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight")
_BIASES = {"attn.qkv.q_bias": ("attn.q_bias",), "attn.qkv.v_bias": ("attn.v_bias",)}

# CLIP's own text tower, which BAAI's and open_clip's checkpoints share.
_CLIP_TEXT: Names = {"norm": ("ln_final",), "head.weight": ("text_projection",)}
_CLIP_TEXT_BLOCK: Names = {
    "norm1": ("ln_1",),
    "norm2": ("ln_2",),
    "attn.qkv.weight": ("attn.in_proj_weight",),
    "attn.qkv.bias": ("attn.in_proj_bias",),
    "attn.proj": ("attn.out_proj",),
    "mlp.fc1": ("mlp.c_fc",),
    "mlp.fc2": ("mlp.c_proj",),
}

NATIVE = Layout(name="native", has_logit_bias=True)

BAAI = Layout(
    name="baai",
    visual={"patch_embed": ("patch_embed.proj",)},
    visual_block={
        "attn.qkv.weight": _SPLIT_QKV,
        **_BIASES,
        "attn.norm": ("attn.inner_attn_ln",),
        "mlp.w12": ("mlp.w1", "mlp.w2"),
        "mlp.norm": ("mlp.ffn_ln",),
    },
    fused_block=_BIASES,
    text=_CLIP_TEXT,
    text_blocks="transformer.resblocks.",
    text_block=_CLIP_TEXT_BLOCK,
    transposed=("text.head.weight",),
    squeezed=("logit_scale",),
)

# EVA before it becomes a CLIP: the same tower alone, with its mask token and prediction head.
MIM = Layout(
    name="mim",
    visual_prefix="",
    visual=BAAI.visual,
    visual_block=BAAI.visual_block,
    fused_block=BAAI.fused_block,
)

_TIMM_BLOCK: Names = {
    "attn.qkv.weight": _SPLIT_QKV,
    "attn.qkv.q_bias": ("attn.q_proj.bias",),
    "attn.qkv.v_bias": ("attn.v_proj.bias",),
    "mlp.w12": ("mlp.fc1_g", "mlp.fc1_x"),
    "mlp.w3": ("mlp.fc2",),
}

TIMM = Layout(
    name="timm",
    visual_prefix="",
    visual=BAAI.visual,
    visual_block=_TIMM_BLOCK,
    fused_block=_BIASES,
    zero_head_bias=True,
)

OPEN_CLIP = Layout(
    name="open_clip",
    visual_prefix="visual.trunk.",
    visual=BAAI.visual,
    visual_block=_TIMM_BLOCK,
    fused_block=_BIASES,
    text=_CLIP_TEXT,
    text_blocks="transformer.resblocks.",
    text_block=_CLIP_TEXT_BLOCK,
    transposed=("text.head.weight",),
    squeezed=("logit_scale", "logit_bias"),
    zero_head_bias=True,
    has_logit_bias=True,
)

_HUGGING_FACE_BLOCK: Names = {
    "norm1": ("layer_norm1",),
    "norm2": ("layer_norm2",),
    "attn.qkv.weight": tuple(f"self_attn.{part}_proj.weight" for part in "qkv"),
    "attn.qkv.bias": tuple(f"self_attn.{part}_proj.bias" for part in "qkv"),
    "attn.qkv.q_bias": ("self_attn.q_proj.bias",),
    "attn.qkv.v_bias": ("self_attn.v_proj.bias",),
    "attn.norm": ("self_attn.inner_attn_ln",),
    "attn.proj": ("self_attn.out_proj",),
    "mlp.w12": ("mlp.fc1", "mlp.fc2"),
    "mlp.w3": ("mlp.fc3",),
    "mlp.norm": ("mlp.ffn_ln",),
}

HUGGING_FACE = Layout(
    name="huggingface",
    visual_prefix="vision_model.",
    visual_blocks="encoder.layers.",
    visual={
        "cls_token": ("embeddings.class_embedding",),
        "pos_embed": ("embeddings.position_embedding.weight",),
        "patch_embed": ("embeddings.patch_embedding",),
        "norm": ("post_layernorm",),
    },
    visual_block=_HUGGING_FACE_BLOCK,
    text_prefix="text_model.",
    text_blocks="encoder.layers.",
    text={
        "token_embedding": ("embeddings.token_embedding",),
        "positional_embedding": ("embeddings.position_embedding.weight",),
        "norm": ("final_layer_norm",),
    },
    text_block=_HUGGING_FACE_BLOCK,
    root={
        "visual.head.weight": ("visual_projection.weight",),
        "visual.head.bias": ("visual_projection.bias",),
        "text.head.weight": ("text_projection.weight",),
    },
    squeezed=("visual.cls_token", "visual.pos_embed", "logit_scale"),
)

LAYOUTS = {layout.name: layout for layout in (NATIVE, BAAI, MIM, TIMM, OPEN_CLIP, HUGGING_FACE)}


def detect_layout(names: Collection[str]) -> Layout | None:
    """The layout these names are written in, or None.

    A tower alone whose names BAAI and timm share (those without SwiGLU) is read as BAAI's: it is the same.
    """
    present = set(names)
    if "vision_model.embeddings.class_embedding" in present or "text_model.final_layer_norm.weight" in present:
        return HUGGING_FACE
    if "visual.trunk.cls_token" in present:
        return OPEN_CLIP
    if "visual.patch_embed.weight" in present or "text.head.weight" in present:
        return NATIVE
    if "visual.patch_embed.proj.weight" in present or "text.token_embedding.weight" in present:
        return BAAI
    if "patch_embed.proj.weight" in present:
        return TIMM if "blocks.0.mlp.fc1_g.weight" in present else MIM
    return None
