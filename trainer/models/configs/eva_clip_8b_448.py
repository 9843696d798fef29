"""EVA-CLIP-8B+: the 8B model at 448 px (arXiv 2402.04252)."""

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
        image_size=448,
    ),
    text=TextConfig(layers=32, width=1280, heads=20),
)
