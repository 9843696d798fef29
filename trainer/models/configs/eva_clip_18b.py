"""EVA-CLIP-18B: RMSNorm after each layer, no qkv bias (arXiv 2402.04252, table 1)."""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig(
    embed_dim=1536,
    vision=VisionConfig(
        layers=48,
        width=5120,
        head_width=128,
        hidden_width=25600,
        patch_size=14,
        norm="rms",
        bias=False,
        post_norm=True,
    ),
    text=TextConfig(layers=32, width=1280, heads=20),
)
