"""How large a model is, counted from its numbers alone: parameters exactly, training memory as an estimate.

Nothing here imports torch, so that a dry run answers anywhere. `tests/trainer/test_sizes.py` holds them against
modules that were really built.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainer.models.config import ClipConfig, TextConfig, VisionConfig
from trainer.models.widths import fast_width

ELEMENTS_AT_ONCE = 2**28
"""Elements that are updated together at stages 1 to 3 (`trainer.optim.whole_step`)."""
UPDATE_BYTES = {"adamw": 0, "lion": 4, "lamb": 8, "lamb-eva": 8}
"""What an optimizer computes of an element's gradient beside its moments, at the highest point of its step."""
DECAY_BYTES = {"lamb": 4, "lamb-eva": 4}
"""The same for weight decay, where there is any."""


def image_parameters(config: ClipConfig, *, with_head: bool = True) -> int:
    """Parameters of the image tower, with its projection into the shared space or, under pre-training, without."""
    vision = config.vision
    width, hidden = vision.width, vision.hidden_width
    norm = width if vision.norm == "rms" else 2 * width
    hidden_norm = hidden if vision.norm == "rms" else 2 * hidden
    attention = 4 * width**2 + width + (2 * width if vision.bias else 0) + (norm if vision.sub_norm else 0)
    if vision.swiglu:
        mlp = 3 * width * hidden + 2 * hidden + width + (hidden_norm if vision.sub_norm else 0)
    else:
        mlp = 2 * width * hidden + hidden + width
    embedding = 3 * vision.patch_size**2 * width + width + (2 + vision.num_patches) * width
    head = width * config.embed_dim + (config.embed_dim if vision.bias else 0)
    return embedding + vision.layers * (attention + mlp + 2 * norm) + norm + (head if with_head else 0)


def text_parameters(config: ClipConfig) -> int:
    """Parameters of the text tower."""
    text = config.text
    width, hidden = text.width, text.hidden_width
    block = 4 * width**2 + 4 * width + 2 * width * hidden + hidden + width + 4 * width
    embedding = (text.vocab_size + text.context_length) * width
    return embedding + text.layers * block + 2 * width + width * config.embed_dim


def clip_parameters(config: ClipConfig) -> int:
    """Parameters of a `trainer.models.clip.Clip`: both towers and the temperature."""
    return image_parameters(config) + text_parameters(config) + 1


def masked_image_parameters(config: ClipConfig, teacher_dim: int) -> int:
    """Parameters of a `trainer.models.mim.MaskedImageModel`: the bare tower, the mask token, the prediction head."""
    width = config.vision.width
    return image_parameters(config, with_head=False) + width + (width + 1) * teacher_dim


@dataclass(frozen=True)
class BytesPerParameter:
    """Bytes of training state that one parameter costs when nothing is sharded."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """The sum of the three."""
        return self.weights + self.gradients + self.optimizer


def bytes_per_parameter(precision: str, optimizer: str, gradients: str = "model") -> BytesPerParameter:
    """Mixed precision adds a float32 master to the optimizer's moments (ZeRO, arXiv 1910.02054, section 3.1).

    Args:
        precision: "fp32", or "bf16" or "fp16" with a master copy.
        optimizer: "lion" keeps one moment, the others two.
        gradients: "fp32" where they add up in that precision whatever the model's is.
    """
    moments = 4 if optimizer == "lion" else 8
    if precision == "fp32":
        return BytesPerParameter(4, 4, moments)
    return BytesPerParameter(2, 4 if gradients == "fp32" else 2, 4 + moments)


def update_bytes(precision: str, optimizer: str, *, decays: bool, gradients: str = "model") -> int:
    """Bytes of an element that is updated which only the optimizer's step takes, beside its gradient.

    First the gradients are joined into one tensor. Then that one stands in their place, and beside it its float32 copy,
    unless it is float32, and what the optimizer computes.
    """
    joined = bytes_per_parameter(precision, optimizer, gradients).gradients
    computed = UPDATE_BYTES[optimizer] + (DECAY_BYTES.get(optimizer, 0) if decays else 0)
    return max(joined, (4 if joined < 4 else 0) + computed)


def padded_weights(config: ClipConfig, *, recompute: bool, num_bytes: int) -> int:
    """Bytes of weights with zeros appended (`trainer.models.padding`) that the backward pass keeps."""
    vision = config.vision
    if not vision.swiglu:
        return 0
    padded = [fast_width(width) if fast_width(width) != width else 0 for width in _gated_widths(vision)]
    return sum(padded) * vision.width * num_bytes * (1 if recompute else vision.layers)


def _gated_widths(vision: VisionConfig) -> tuple[int, int]:
    return 2 * vision.hidden_width, vision.hidden_width


def image_activations(config: ClipConfig, patch_drop: float, *, recompute: bool, num_bytes: int) -> int:
    """Bytes that the backward pass of one image keeps, as an estimate.

    Counted are the inputs of matrix products, norms and activation functions, as in arXiv 2205.05198, section 4.1; the
    fused attention keeps no matrix of scores. With `recompute`, only each block's input and one block in full.
    """
    vision = config.vision
    tokens = 1 + max(1, int(vision.num_patches * (1 - patch_drop)))
    rotated = 2 * vision.width if vision.rope_grid else 0
    inner = vision.width if vision.sub_norm else 0
    mlp = (4 if vision.swiglu else 2) * vision.hidden_width + (vision.hidden_width if vision.sub_norm else 0)
    block = 8 * vision.width + rotated + inner + mlp
    return tokens * num_bytes * _all_blocks(vision, block, recompute)


def text_activations(config: ClipConfig, *, recompute: bool, num_bytes: int) -> int:
    """Bytes that the backward pass of one caption of full length keeps, as `image_activations` counts them."""
    text = config.text
    block = 8 * text.width + 2 * text.hidden_width
    return text.context_length * num_bytes * _all_blocks(text, block, recompute)


def _all_blocks(tower: VisionConfig | TextConfig, block: int, recompute: bool) -> int:
    return tower.layers * tower.width + block if recompute else tower.layers * block
