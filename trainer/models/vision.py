"""The image tower of EVA-CLIP: a ViT with the choices of `VisionConfig`, from pixels to an embedding."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.config import VisionConfig
from trainer.models.initial import PLAIN_STD, BlockStds, TowerStds, choose_beit_stds
from trainer.models.layers import Attention, Block, Blocks, Linear, Mlp, SwiGlu
from trainer.models.norms import GatedNorm, Norm, NormOfBranch, NormOfSum
from trainer.models.padding import append_zeros, pad_width
from trainer.models.rope import rotation_table

Output = Literal["pooled", "patches", "tokens"]


class PatchEmbed(nn.Module):
    """Non-overlapping patches through one linear map; the weight keeps the shape of the equivalent convolution."""

    def __init__(self, patch_size: int, width: int, std: float) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.weight = nn.Parameter(torch.empty(width, 3, patch_size, patch_size))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.weight, std=std)

    def forward(self, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """`[b, 3, h, w]` to `[b, patches, width]`, row by row; of these only `keep`, `[b, kept]`, when given."""
        batch, _, height, width = pixels.shape
        size = self.patch_size
        patches = pixels.reshape(batch, 3, height // size, size, width // size, size)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, 3 * size * size)
        if keep is not None:
            first = torch.arange(batch, device=keep.device)[:, None] * patches.shape[1]
            patches = patches.flatten(0, 1).index_select(0, (keep + first).flatten()).view(*keep.shape, -1)
        width = pad_width(patches.shape[-1], patches)
        return F.linear(append_zeros(patches, width), append_zeros(self.weight.flatten(1), width), self.bias)


class VisionTower(nn.Module):
    """ViT with a CLS token; `embed_dim` 0 leaves out the projection, as a tower under pre-training has none.

    Initial values are those of `stds` (BEiT's by default), tokens and positions N(0, 0.02²); under post-norm the
    branches' norms start at zero as well, as in EVA's pre-training code.
    """

    def __init__(self, config: VisionConfig, embed_dim: int, stds: TowerStds | None = None) -> None:
        super().__init__()
        stds = choose_beit_stds(config) if stds is None else stds
        self.config, self.embed_dim = config, embed_dim
        self.patch_drop = config.patch_drop
        self.patch_embed = PatchEmbed(config.patch_size, config.width, stds.patches)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + config.num_patches, config.width))
        nn.init.normal_(self.cls_token, std=PLAIN_STD)
        nn.init.normal_(self.pos_embed, std=PLAIN_STD)
        self.blocks = Blocks(_make_block(config, index, block) for index, block in enumerate(stds.blocks))
        self.norm = Norm(config.width, config.norm_eps, config.norm)
        self.head = Linear(config.width, embed_dim, bias=config.bias) if embed_dim else nn.Identity()
        self._rotation: Tensor | None = None

    def forward(
        self,
        pixels: Tensor,
        *,
        output: Output = "pooled",
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Encode images.

        Args:
            pixels: normalised, `[b, 3, image_size, image_size]`.
            output: "pooled" is CLS projected, `[b, embed_dim]`; "patches" every patch projected,
                `[b, num_patches, embed_dim]`; "tokens" CLS and patches after the last norm, `[b, 1 + n, width]`.
            mask: bool `[b, num_patches]`, true where `mask_token` (`[1, 1, width]`) stands in for the patch.

        Patch dropout acts in training mode only, and leaves fewer patches in "patches" and "tokens".

        Raises:
            ValueError: when the images are not of the model's size.
        """
        side = self.config.image_size
        if pixels.shape[1:] != (3, side, side):
            raise ValueError(f"The model takes images [b, 3, {side}, {side}], not {list(pixels.shape)}.")
        keep = self._draw_kept(pixels)
        x = self._embed(pixels, keep, mask, mask_token)
        rotation = self._rotation_table(x.device, keep)
        if output == "pooled":
            cls = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            pooled: Tensor = self.head(self.norm(self.blocks(x, rotation, cls)[:, 0]))
            return pooled
        x = self.blocks(x, rotation)
        tokens: Tensor = self.norm(x) if output == "tokens" else self.head(self.norm(x[:, 1:]))
        return tokens

    def _draw_kept(self, pixels: Tensor) -> Tensor | None:
        """Random patches of each image (FLIP, arXiv 2212.00794): int64 `[b, kept]`, or None for all."""
        if not (self.training and self.patch_drop):
            return None
        num_patches = self.config.num_patches
        kept = max(1, int(num_patches * (1 - self.patch_drop)))
        return torch.rand(pixels.shape[0], num_patches, device=pixels.device).topk(kept, dim=1).indices

    def _embed(self, pixels: Tensor, keep: Tensor | None, mask: Tensor | None, mask_token: Tensor | None) -> Tensor:
        x = self.patch_embed(pixels, keep)
        if mask is not None and mask_token is not None:
            chosen = mask if keep is None else mask.gather(1, keep)
            x = torch.where(chosen[..., None], mask_token.to(x.dtype), x)
        position = self.pos_embed[:, 1:] if keep is None else self.pos_embed[0, 1:][keep]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat((cls, x + position), dim=1)

    def _rotation_table(self, device: torch.device, keep: Tensor | None) -> Tensor | None:
        """The rotary table, float32 whatever the model's dtype; made on first use, so that meta models cost nothing."""
        config = self.config
        if not config.rope_grid:
            return None
        if self._rotation is None or self._rotation.device != device:
            # Not an inference tensor, even when evaluation comes first: training saves it for its backward pass.
            with torch.inference_mode(False):
                self._rotation = rotation_table(config.grid, config.head_width, config.rope_grid, device=device)
        if keep is None:
            return self._rotation
        return self._rotation[F.pad(keep + 1, (1, 0))]


def _make_block(config: VisionConfig, index: int, stds: BlockStds) -> Block:
    attention = Attention(
        config.width,
        config.head_width,
        bias="qv" if config.bias else "none",
        norm=Norm(config.width, config.norm_eps, config.norm) if config.sub_norm else None,
        qkv_std=stds.query_key,
        value_std=stds.value,
        proj_std=stds.attention_out,
    )
    mlp: nn.Module
    if config.swiglu:
        inner = GatedNorm(config.hidden_width, config.norm_eps, config.norm) if config.sub_norm else None
        mlp = SwiGlu(config.width, config.hidden_width, norm=inner, in_std=stds.mlp_in, out_std=stds.mlp_out)
    else:
        mlp = Mlp(config.width, config.hidden_width, in_std=stds.mlp_in, out_std=stds.mlp_out)
    drop_path = config.drop_path * index / max(1, config.layers - 1)
    return Block(attention, mlp, _make_block_norms(config), post_norm=config.post_norm, drop_path=drop_path)


def _make_block_norms(config: VisionConfig) -> tuple[nn.Module, nn.Module]:
    width, eps, kind = config.width, config.norm_eps, config.norm
    if config.post_norm:
        return NormOfBranch(width, eps, kind, gain=0.0), NormOfBranch(width, eps, kind, gain=0.0)
    return Norm(width, eps, kind), NormOfSum(width, eps, kind)
