"""The transformer block that both towers are made of.

Every parameter gets its first value inside the constructor of the module that owns it, and is used only in that
module's forward: `deepspeed.zero.Init` shards a module as soon as its constructor returns, and ZeRO-3 gathers a
module's parameters around its forward.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.models.fusing import add_branch, gate
from trainer.models.norms import GatedNorm
from trainer.models.padding import append_zeros, pad_width
from trainer.models.rope import rotate

Bias = Literal["none", "qv", "qkv"]


class Linear(nn.Linear):
    """`nn.Linear` whose weight starts as N(0, std²) and whose bias starts at zero."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, std: float = 0.02) -> None:
        self.std = std
        super().__init__(in_features, out_features, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the weight; called once by the constructor of `nn.Linear`."""
        nn.init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, padded: int | None = None) -> Tensor:
        """`[…, in_features]` to `[…, out_features]`.

        Args:
            x: may be wider than the layer when what is appended is zeros.
            padded: width of the result, when it is to be wider than the layer; what is appended is zeros.
        """
        weight = append_zeros(self.weight, x.shape[-1])
        bias: Tensor | None = self.bias
        if padded is not None:
            weight = append_zeros(weight, padded, axis=0)
            bias = None if bias is None else append_zeros(bias, padded)
        return F.linear(x, weight, bias)


class Qkv(nn.Module):
    """Queries, keys and values in one matrix product, with EVA's bias on queries and values only, CLIP's, or none."""

    bias: nn.Parameter
    q_bias: nn.Parameter
    v_bias: nn.Parameter

    def __init__(self, width: int, bias: Bias, std: float, value_std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3 * width, width))
        nn.init.normal_(self.weight, std=std)
        with torch.no_grad():
            self.weight[2 * width :] *= value_std / std
        for name, size in {"none": {}, "qv": {"q_bias": 1, "v_bias": 1}, "qkv": {"bias": 3}}[bias].items():
            self.register_parameter(name, nn.Parameter(torch.zeros(size * width)))
        self.kind = bias

    def forward(self, x: Tensor, asking: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Project all tokens, or keys and values of all and queries of some.

        Args:
            x: `[b, n, width]`.
            asking: `[b, m, width]`, the tokens that ask; all of `x` by default.

        Returns:
            Queries and keys side by side `[b, n, 2, width]` and values `[b, n, width]`; with `asking`, queries
            `[b, m, width]` and keys and values `[b, n, 2, width]`.
        """
        width = x.shape[-1]
        bias = self._bias()
        if asking is None:
            # split, not slices: its backward writes one gradient, theirs as many padded ones as there are slices
            query_key, value = F.linear(x, self.weight, bias).unflatten(-1, (3, width)).split((2, 1), dim=2)
            return query_key, value.squeeze(2)
        sizes = (width, 2 * width)
        query_weight, other_weight = self.weight.split(sizes)
        query_bias, other_bias = (None, None) if bias is None else bias.split(sizes)
        query = F.linear(asking, query_weight, query_bias)
        return query, F.linear(x, other_weight, other_bias).unflatten(-1, (2, width))

    def _bias(self) -> Tensor | None:
        if self.kind == "qv":
            return torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        return self.bias if self.kind == "qkv" else None


class Attention(nn.Module):
    """Multi-head self-attention with optional rotary positions, causal mask and inner norm (sub-LN)."""

    def __init__(
        self,
        width: int,
        head_width: int,
        *,
        bias: Bias,
        norm: nn.Module | None = None,
        causal: bool = False,
        qkv_std: float = 0.02,
        value_std: float | None = None,
        proj_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.head_width, self.causal = head_width, causal
        self.qkv = Qkv(width, bias, qkv_std, qkv_std if value_std is None else value_std)
        self.norm = norm
        self.proj = Linear(width, width, std=proj_std)

    def forward(self, x: Tensor, rotation: Tensor | None = None, pooled: Tensor | None = None) -> Tensor:
        """Mix tokens.

        Args:
            x: `[b, n, width]`.
            rotation: a table of `trainer.models.rope`.
            pooled: int64 `[b]`, the one token of each sample that is wanted; with `rotation` it is CLS, 0.

        Returns:
            `[b, n, width]`, or `[b, 1, width]` when pooled.
        """
        mask = None
        if pooled is None:
            query_key, value = self.qkv(x)
            query, key = self._rotate_heads(query_key, rotation).unbind(2)
        else:
            query, key_value = self.qkv(x, take_token(x, pooled))
            key, value = key_value.unbind(2)
            query, key = self._split_heads(query), self._rotate_heads(key, rotation)
            if self.causal:
                mask = (torch.arange(x.shape[1], device=x.device) <= pooled[:, None])[:, None, None]
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            self._split_heads(value).transpose(1, 2),
            attn_mask=mask,
            is_causal=self.causal and mask is None,
        )
        mixed = mixed.transpose(1, 2).flatten(2)
        projected: Tensor = self.proj(mixed if self.norm is None else self.norm(mixed))
        return projected

    def _split_heads(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(-1, (-1, self.head_width))
        return split

    def _rotate_heads(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        return self._split_heads(x) if rotation is None else rotate(self._split_heads(x), rotation)


def take_token(x: Tensor, index: Tensor) -> Tensor:
    """One token of each sample: `[b, n, width]` and int64 `[b]` to `[b, 1, width]`."""
    return x[torch.arange(x.shape[0], device=x.device), index].unsqueeze(1)


class Mlp(nn.Module):
    """Two layers with the exact GELU between."""

    def __init__(self, width: int, hidden_width: int, *, in_std: float = 0.02, out_std: float = 0.02) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden_width, std=in_std)
        self.fc2 = Linear(hidden_width, width, std=out_std)

    def forward(self, x: Tensor) -> Tensor:
        """`[…, width]` to the same shape."""
        output: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return output


class SwiGlu(nn.Module):
    """SiLU-gated MLP (arXiv 2002.05202) with gate and value in one product and an optional inner norm (sub-LN)."""

    def __init__(
        self, width: int, hidden_width: int, *, norm: GatedNorm | None, in_std: float = 0.02, out_std: float = 0.02
    ) -> None:
        super().__init__()
        self.hidden_width = hidden_width
        self.w12 = Linear(width, 2 * hidden_width, std=in_std)
        self.norm = norm
        self.w3 = Linear(hidden_width, width, std=out_std)

    def forward(self, x: Tensor) -> Tensor:
        """`[…, width]` to the same shape."""
        product = self.w12(x, pad_width(2 * self.hidden_width, x))
        padded = pad_width(self.hidden_width, x)
        hidden = gate(product, self.hidden_width, padded) if self.norm is None else self.norm(product, padded)
        output: Tensor = self.w3(hidden)
        return output


class Block(nn.Module):
    """Attention and MLP, each on a residual branch with a norm at its entry or, post-norm, at its exit.

    Each norm that stands beside an addition does it too: `norms` are a plain one and a norm of a sum, or, post-norm,
    two norms of branches (`trainer.models.norms`).
    """

    def __init__(
        self,
        attention: Attention,
        mlp: nn.Module,
        norms: tuple[nn.Module, nn.Module],
        *,
        post_norm: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.attn = norms[0], attention
        self.norm2, self.mlp = norms[1], mlp
        self.post_norm, self.drop_path = post_norm, drop_path

    def forward(self, x: Tensor, rotation: Tensor | None = None, pooled: Tensor | None = None) -> Tensor:
        """`[b, n, width]` to the same shape, or `[b, 1, width]` for the token of each sample in `pooled`, `[b]`.

        The last block of a tower whose other outputs nobody reads is pooled: all tokens give keys and values, but one
        asks and goes through the MLP, which is exact and saves most of a block.
        """
        wanted = x if pooled is None else take_token(x, pooled)
        drop_path = self.drop_path if self.training else 0.0
        if self.post_norm:
            wanted = self.norm1(wanted, self.attn(x, rotation, pooled), drop_path)
            output: Tensor = self.norm2(wanted, self.mlp(wanted), drop_path)
            return output
        wanted, normed = self.norm2(wanted, self.attn(self.norm1(x), rotation, pooled), drop_path)
        return add_branch(wanted, self.mlp(normed), drop_path)


class Blocks(nn.ModuleList):
    """The blocks of a tower in their order, each recomputed in the backward pass if so wished."""

    grad_checkpointing = False

    def forward(self, x: Tensor, rotation: Tensor | None = None, pooled: Tensor | None = None) -> Tensor:
        """`[b, n, width]` to the same shape, or `[b, 1, width]` for the token of each sample in `pooled`, `[b]`."""
        last = len(self) - 1
        for index, block in enumerate(self):
            arguments = (x, rotation, pooled if index == last else None)
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
        return x
