"""A small EVA-02 that a CPU trains in minutes, to tell right pairs from wrong ones (arXiv 2309.17425)."""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig(
    embed_dim=64,
    vision=VisionConfig(
        layers=3,
        width=96,
        head_width=32,
        hidden_width=256,
        patch_size=16,
        image_size=64,
        swiglu=True,
        sub_norm=True,
        rope_grid=4,
    ),
    text=TextConfig(layers=2, width=64, heads=2),
)
