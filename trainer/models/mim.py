"""The student of masked image modelling: an image tower that predicts a teacher's features where patches are hidden."""

import torch
from torch import Tensor, nn

from trainer.models.clip import LayerGroup, layer_group
from trainer.models.config import ClipConfig
from trainer.models.initial import PLAIN_STD, choose_pretraining_stds, xavier_std
from trainer.models.layers import Linear
from trainer.models.vision import VisionTower


class MaskedImageModel(nn.Module):
    """EVA's pre-training model (arXiv 2211.07636, section 2): an image tower, a mask token and a prediction head.

    What it learns initialises the image tower of a CLIP (`trainer.weights.fill_towers`).
    """

    def __init__(self, config: ClipConfig, teacher_dim: int) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionTower(config.vision, embed_dim=0, stds=choose_pretraining_stds(config.vision))
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.vision.width))
        nn.init.normal_(self.mask_token, std=PLAIN_STD)
        head_std = xavier_std(config.vision.width, teacher_dim) if config.vision.sub_norm else PLAIN_STD
        self.lm_head = Linear(config.vision.width, teacher_dim, std=head_std)

    def forward(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """Predict the teacher's features.

        Args:
            pixels: `[b, 3, image_size, image_size]`, normalised, of any dtype.
            mask: bool `[b, num_patches]`, true where the patch is hidden from the model.

        Returns:
            `[number of hidden patches, teacher_dim]`, image by image and row by row, as `teacher_features[mask]` is.
        """
        tokens = self.visual(pixels.to(self.mask_token.dtype), output="tokens", mask=mask, mask_token=self.mask_token)
        predicted: Tensor = self.lm_head(tokens[:, 1:][mask])
        return predicted

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Recompute every block in the backward pass instead of keeping its activations."""
        self.visual.blocks.grad_checkpointing = enabled

    def layer_groups(self) -> dict[str, LayerGroup]:
        """Where each parameter stands, as `Clip.layer_groups`."""
        return {name: layer_group(name, parameter, self) for name, parameter in self.named_parameters()}
