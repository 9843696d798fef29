"""EVA02-CLIP-L/14: 2-D RoPE, SwiGLU and sub-LN, 428 M parameters (arXiv 2303.15389, table 1)."""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig(
    embed_dim=768,
    vision=VisionConfig(
        layers=24,
        width=1024,
        head_width=64,
        hidden_width=2730,
        patch_size=14,
        swiglu=True,
        sub_norm=True,
        rope_grid=16,
    ),
    text=TextConfig(layers=12, width=768, heads=12),
)
