"""EVA01-CLIP-g/14+: the g/14 tower with a text tower twice as deep, 1.37 B parameters (arXiv 2303.15389, table 1)."""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig(
    embed_dim=1024,
    vision=VisionConfig(
        layers=40,
        width=1408,
        head_width=88,
        hidden_width=6144,
        patch_size=14,
    ),
    text=TextConfig(layers=24, width=1024, heads=16),
)
