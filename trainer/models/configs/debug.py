"""A toy of the EVA-02 style (RoPE, SwiGLU, sub-LN) that trains on two CPU cores; its vocabulary is most of it."""

from trainer.models.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig(
    embed_dim=32,
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
    text=TextConfig(layers=2, width=32, heads=2),
)
