"""EVA02-CLIP-B/16: 2-D RoPE, SwiGLU and sub-LN, 150 M parameters (arXiv 2303.15389, table 1)."""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig(
    embed_dim=512,
    vision=VisionConfig(
        layers=12,
        width=768,
        head_width=64,
        hidden_width=2048,
        patch_size=16,
        swiglu=True,
        sub_norm=True,
        rope_grid=16,
    ),
    text=TextConfig(layers=12, width=512, heads=8),
)
