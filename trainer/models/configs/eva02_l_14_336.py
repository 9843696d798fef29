"""EVA02-CLIP-L/14+: the L/14 model at 336 px (arXiv 2303.15389, table 1)."""

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
        image_size=336,
    ),
    text=TextConfig(layers=12, width=768, heads=12),
)
