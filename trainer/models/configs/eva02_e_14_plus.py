"""EVA02-CLIP-E/14+: the E/14 image tower with a larger text tower, 5.0 B parameters (arXiv 2303.15389, table 1)."""

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
    text=TextConfig(layers=32, width=1280, heads=20),
)
