"""EVA02-CLIP-E/14: residual post-norm, 4.7 B parameters (arXiv 2303.15389, table 1)."""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig(
    embed_dim=1024,
    vision=VisionConfig(
        layers=64,
        width=1792,
        head_width=112,
        hidden_width=15360,
        patch_size=14,
        post_norm=True,
    ),
    text=TextConfig(layers=24, width=1024, heads=16),
)
