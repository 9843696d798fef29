"""EVA-CLIP-8B: RMSNorm before each layer, no qkv bias (arXiv 2402.04252, table 1)."""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig(
    embed_dim=1280,
    vision=VisionConfig(
        layers=32,
        width=4096,
        head_width=128,
        hidden_width=20480,
        patch_size=14,
        norm="rms",
        bias=False,
    ),
    text=TextConfig(layers=32, width=1280, heads=20),
)
