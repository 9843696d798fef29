"""The text tower: CLIP's causal transformer (arXiv 2103.00020, section 2.4), from token ids to an embedding."""

import torch
from torch import Tensor, nn

from trainer.models.config import TextConfig
from trainer.models.layers import Attention, Block, Blocks, Linear, Mlp
from trainer.models.norms import Norm, NormOfSum


class TextTower(nn.Module):
    """Transformer whose output at the end-of-text token is projected; initial values are those of CLIP's code."""

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = _Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        nn.init.normal_(self.positional_embedding, std=0.01)
        self.blocks = Blocks(_make_block(config) for _ in range(config.layers))
        self.norm = Norm(config.width, config.norm_eps)
        self.head = Linear(config.width, embed_dim, bias=False, std=config.width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode captions.

        Args:
            tokens: int64 `[b, n]` with n at most the context length, as `trainer.data.tokenizer` makes them. The mask
                is causal, so columns after the last end-of-text (`trim` there) change nothing but the time.

        Returns:
            `[b, embed_dim]`, the projection of the first end-of-text token: the largest id of its row.
        """
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        pooled: Tensor = self.blocks(x, pooled=tokens.argmax(dim=-1))
        embedding: Tensor = self.head(self.norm(pooled[:, 0]))
        return embedding


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)


def _make_block(config: TextConfig) -> Block:
    width = config.width
    out_std = (2 * config.layers * width) ** -0.5
    attention = Attention(width, width // config.heads, bias="qkv", causal=True, qkv_std=width**-0.5, proj_std=out_std)
    mlp = Mlp(width, config.hidden_width, in_std=(2 * width) ** -0.5, out_std=out_std)
    return Block(attention, mlp, (Norm(width, config.norm_eps), NormOfSum(width, config.norm_eps)))
