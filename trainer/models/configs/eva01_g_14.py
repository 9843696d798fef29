"""EVA01-CLIP-g/14, 1.14 B parameters (arXiv 2303.15389, table 1)."""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig(
    embed_dim=1024,
    vision=VisionConfig(
        layers=40,
        width=1408,
        head_width=88,
        hidden_width=6144,
        patch_size=14,
        drop_path=0.4,
    ),
    text=TextConfig(layers=12, width=768, heads=12),
)
