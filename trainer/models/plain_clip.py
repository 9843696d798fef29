"""OpenAI's CLIP with ViT towers (arXiv 2103.00020): for embedding with the checkpoints that the field has scored with.

Its parameters are called as in OpenAI's and open_clip's files. EVA-CLIP, which this project trains, is
`trainer.models.clip`; this one differs by a norm before the first block, biases on all of q, k and v, and QuickGELU.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "quick_gelu"]


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """A transformer: `heads` are of one width, and the MLP's inner width is `hidden_width`."""

    layers: int
    width: int
    heads: int
    hidden_width: int


@dataclass(frozen=True, kw_only=True)
class PlainClipConfig:
    """Both towers and the space they share; sides in pixels."""

    vision: TowerShape
    text: TowerShape
    patch_size: int
    image_size: int
    context_length: int
    vocab_size: int
    embed_dim: int
    activation: Activation


class PlainClip(nn.Module):
    """Encodes pictures and texts as CLIP does; made by `trainer.plain_weights.load_plain_clip`."""

    def __init__(self, config: PlainClipConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = _Vision(config)
        self.text = _Text(config)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """`[b, 3, image_size, image_size]` to `[b, embed_dim]`, not normalised."""
        features: Tensor = self.visual(pixels)
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """int64 `[b, n]`, n at most the context length, to `[b, embed_dim]`, not normalised."""
        features: Tensor = self.text(tokens)
        return features


class _Vision(nn.Module):
    def __init__(self, config: PlainClipConfig) -> None:
        super().__init__()
        width, side = config.vision.width, config.image_size // config.patch_size
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + side**2, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _Transformer(config.vision, config.activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, config.embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        cls = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat((cls, patches), dim=1) + self.positional_embedding)
        pooled: Tensor = self.ln_post(self.transformer(x, is_causal=False)[:, 0]) @ self.proj
        return pooled


class _Text(nn.Module):
    def __init__(self, config: PlainClipConfig) -> None:
        super().__init__()
        width = config.text.width
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(config.context_length, width))
        self.transformer = _Transformer(config.text, config.activation)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, config.embed_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.transformer(x, is_causal=True)
        pooled = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]
        projected: Tensor = self.ln_final(pooled) @ self.text_projection
        return projected


class _Transformer(nn.Module):
    def __init__(self, shape: TowerShape, activation: Activation) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(shape, activation) for _ in range(shape.layers))

    def forward(self, x: Tensor, is_causal: bool) -> Tensor:
        for block in self.resblocks:
            x = block(x, is_causal)
        return x


class _Block(nn.Module):
    def __init__(self, shape: TowerShape, activation: Activation) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.attn = _Attention(shape)
        self.mlp = _Mlp(shape, activation)

    def forward(self, x: Tensor, is_causal: bool) -> Tensor:
        x = x + self.attn(self.ln_1(x), is_causal)
        branch: Tensor = self.mlp(self.ln_2(x))
        return x + branch


class _Attention(nn.Module):
    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * shape.width, shape.width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * shape.width))
        self.out_proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor, is_causal: bool) -> Tensor:
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class _Mlp(nn.Module):
    def __init__(self, shape: TowerShape, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(shape.width, shape.hidden_width)
        self.c_proj = nn.Linear(shape.hidden_width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.activation == "quick_gelu" else F.gelu(hidden)
        out: Tensor = self.c_proj(hidden)
        return out
