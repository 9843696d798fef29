"""Floating-point operations of a forward pass by formula: what utilisation (MFU) and dry runs are computed from.

A multiply-add counts as two. Norms, activations, rotations and softmax are left out, as is customary: they are under
1 % of these models. What is counted is what our towers do, whose last block works for one token of each sample
(`trainer.models.layers.Block`), so that utilisation is never flattered; `published=True` counts the last block in full,
as papers do. A training step is three forwards; recomputed activations are not counted.
"""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig


def image_flops(config: ClipConfig, patch_drop: float = 0.0, *, published: bool = False) -> int:
    """FLOPs to encode one image when this share of its patches, in [0, 1), is dropped."""
    vision = config.vision
    kept = max(1, int(vision.num_patches * (1 - patch_drop)))
    embed = 2 * kept * 3 * vision.patch_size**2 * vision.width
    blocks = _blocks_flops(vision, 3 if vision.swiglu else 2, kept + 1, published)
    return embed + blocks + 2 * vision.width * config.embed_dim


def text_flops(config: ClipConfig, num_tokens: int | None = None, *, published: bool = False) -> int:
    """FLOPs to encode one caption padded to `num_tokens`, by default the whole context.

    The causal mask halves what attention needs, but not what is counted here or what a dense kernel does.
    """
    text = config.text
    blocks = _blocks_flops(text, 2, num_tokens or text.context_length, published)
    return blocks + 2 * text.width * config.embed_dim


def step_flops(config: ClipConfig, patch_drop: float = 0.0, num_tokens: int | None = None, num_frames: int = 1) -> int:
    """FLOPs to train on one pair, or clip: a forward and a backward, which costs two, of both towers."""
    return 3 * (num_frames * image_flops(config, patch_drop) + text_flops(config, num_tokens))


def _blocks_flops(tower: VisionConfig | TextConfig, mlp_matrices: int, num_tokens: int, published: bool) -> int:
    full = _block_flops(tower, mlp_matrices, num_tokens, num_tokens)
    last = full if published else _block_flops(tower, mlp_matrices, num_tokens, 1)
    return (tower.layers - 1) * full + last


def _block_flops(tower: VisionConfig | TextConfig, mlp_matrices: int, num_tokens: int, num_wanted: int) -> int:
    """Keys and values of all tokens, and for those wanted queries, attention, projection and MLP."""
    keys_values = 2 * num_tokens * 2 * tower.width**2
    for_one = 2 * tower.width**2 + mlp_matrices * tower.width * tower.hidden_width + 2 * num_tokens * tower.width
    return keys_values + 2 * num_wanted * for_one
