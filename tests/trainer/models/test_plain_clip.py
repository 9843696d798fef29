"""Plain CLIP equals open_clip's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.trainer.plain_clips import build_theirs, write_hugging_face, write_open_clip
from trainer.data.tokenizer import tokenize, trim
from trainer.encoders import find_embed_dim, load_encoder

TEXTS = ["a dog on the beach", "ein rotes Fahrrad", "x"]


@pytest.mark.parametrize("layout", ["open_clip", "huggingface"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_pictures_and_texts_are_encoded_as_by_open_clip(tmp_path: Path, layout: str, activation: str) -> None:
    theirs = build_theirs(activation == "quick_gelu")
    if layout == "open_clip":
        write_open_clip(theirs, tmp_path / "clip", activation == "quick_gelu")
    else:
        write_hugging_face(theirs, tmp_path / "clip", activation)
    ours = load_encoder(tmp_path / "clip")
    assert (ours.image_size, ours.context_length, ours.embed_dim) == (64, 77, find_embed_dim(tmp_path / "clip"))
    pixels, tokens = torch.randn(2, 3, 64, 64), tokenize(TEXTS)
    with torch.inference_mode():
        torch.testing.assert_close(ours.model.encode_image(pixels), theirs.encode_image(pixels), atol=1e-5, rtol=1e-5)
        expected = theirs.encode_text(tokens)
        torch.testing.assert_close(ours.model.encode_text(tokens), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.model.encode_text(trim(tokens)), expected, atol=1e-5, rtol=1e-5)


def test_the_wrong_activation_would_be_noticed(tmp_path: Path) -> None:
    theirs = build_theirs(quick_gelu=True)
    write_open_clip(theirs, tmp_path / "clip", quick_gelu=False)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        difference = load_encoder(tmp_path / "clip").model.encode_image(pixels) - theirs.encode_image(pixels)
    assert difference.abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-L-14"])
def test_models_as_they_are_published_equal_open_clips(tmp_path: Path, name: str) -> None:
    import json

    from safetensors.torch import save_file

    from tests.support.trainer.torchvision_stub import oracle

    open_clip = oracle("open_clip")
    theirs = open_clip.create_model(name, load_weights=False).eval()
    save_file(theirs.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": open_clip.get_model_config(name)}))
    ours = load_encoder(tmp_path)
    pixels, tokens = torch.randn(1, 3, 224, 224), tokenize(TEXTS)
    with torch.inference_mode():
        for found, expected in (
            (ours.model.encode_image(pixels), theirs.encode_image(pixels)),
            (ours.model.encode_text(tokens), theirs.encode_text(tokens)),
        ):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
