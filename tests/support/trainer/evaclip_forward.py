"""What BAAI's code for EVA-CLIP-8B and -18B computes from a folder with config.json and model.safetensors.

Written from the names of its modules and of the keys of its configuration, with none of this project's towers, so that
an export is held against what transformers would make of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu}


class FolderModel:
    """The model of a folder; `unused` are the tensors that nothing has asked for yet."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self._tensors = load_file(folder / "model.safetensors")
        self.unused = set(self._tensors) - {"logit_scale"}

    def encode_image(self, pixels: Tensor) -> Tensor:
        config, start = self.config["vision_config"], "vision_model."
        kernel = self._take(f"{start}embeddings.patch_embedding.weight")
        assert kernel.shape[2:] == (config["patch_size"], config["patch_size"])
        bias = self._take(f"{start}embeddings.patch_embedding.bias")
        patches = F.conv2d(pixels, kernel, bias, stride=config["patch_size"]).flatten(2).transpose(1, 2)
        first = self._take(f"{start}embeddings.class_embedding").expand(len(pixels), 1, -1)
        positions = self._take(f"{start}embeddings.position_embedding.weight")
        assert len(positions) == (config["image_size"] // config["patch_size"]) ** 2 + 1
        hidden = self._run_layers(torch.cat([first, patches], dim=1) + positions, config, start)
        return self._project("visual_projection", self._norm(hidden[:, 0], f"{start}post_layernorm", config))

    def encode_text(self, tokens: Tensor) -> Tensor:
        config, start = self.config["text_config"], "text_model."
        hidden = self._take(f"{start}embeddings.token_embedding.weight")[tokens]
        hidden = hidden + self._take(f"{start}embeddings.position_embedding.weight")[: tokens.shape[1]]
        hidden = self._norm(self._run_layers(hidden, config, start, causal=True), f"{start}final_layer_norm", config)
        ends = hidden[torch.arange(len(tokens)), tokens.argmax(1)]
        return self._project("text_projection", ends)

    def _run_layers(self, hidden: Tensor, config: dict[str, Any], start: str, *, causal: bool = False) -> Tensor:
        for number in range(config["num_hidden_layers"]):
            layer = f"{start}encoder.layers.{number}."
            for branch, norm in ((self._attend, "layer_norm1"), (self._feed, "layer_norm2")):
                if config["post_layernorm"]:
                    hidden = hidden + self._norm(branch(hidden, config, layer, causal), layer + norm, config)
                else:
                    hidden = hidden + branch(self._norm(hidden, layer + norm, config), config, layer, causal)
        return hidden

    def _attend(self, hidden: Tensor, config: dict[str, Any], layer: str, causal: bool) -> Tensor:
        heads = config["num_attention_heads"]
        query, key, value = (
            F.linear(
                hidden,
                self._take(f"{layer}self_attn.{part}_proj.weight"),
                self._take(f"{layer}self_attn.{part}_proj.bias") if config[f"{part}_bias"] else None,
            )
            .unflatten(2, (heads, config["hidden_size"] // heads))
            .transpose(1, 2)
            for part in "qkv"
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal).transpose(1, 2).flatten(2)
        return self._project(f"{layer}self_attn.out_proj", mixed)

    def _feed(self, hidden: Tensor, config: dict[str, Any], layer: str, causal: bool) -> Tensor:
        inner = ACTIVATIONS[config["hidden_act"]](self._project(f"{layer}mlp.fc1", hidden))
        assert inner.shape[-1] == config["intermediate_size"]
        return self._project(f"{layer}mlp.fc2", inner)

    def _norm(self, hidden: Tensor, name: str, config: dict[str, Any]) -> Tensor:
        weight, shape = self._take(f"{name}.weight"), (config["hidden_size"],)
        if config["use_rms_norm"]:
            return F.rms_norm(hidden, shape, weight, config["layer_norm_eps"])
        return F.layer_norm(hidden, shape, weight, self._take(f"{name}.bias"), config["layer_norm_eps"])

    def _project(self, name: str, hidden: Tensor) -> Tensor:
        bias = None if name in ("visual_projection", "text_projection") else self._take(f"{name}.bias")
        return F.linear(hidden, self._take(f"{name}.weight"), bias)

    def _take(self, name: str) -> Tensor:
        self.unused.discard(name)
        return self._tensors[name]
