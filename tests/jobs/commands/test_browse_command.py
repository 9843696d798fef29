"""Searching by meaning: by the CLIP that embedded the root, and by no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from curation.storage import Root
from jobs.commands.browse_command import find_texts
from jobs.embedders import identify_model, load_text_embedder
from tests.support import small_root
from tests.support.tiny_clip import write_tiny_clip


def test_texts_are_embedded_by_the_model_that_embedded_the_pictures(root: Root, tmp_path: Path) -> None:
    small_root.finish(root)
    model = str(tmp_path / "clip.safetensors")
    write_tiny_clip(tmp_path / "clip.safetensors")
    root.publish_json("embeddings/metadata/_config.json", {"config": {"model": identify_model(model)}})
    texts = find_texts(root, model)
    assert texts.table == "embeddings"
    expected = load_text_embedder(model).embed_texts([""], ["a dog"])[0]
    assert np.array_equal(texts.embed("a dog"), expected)
    with pytest.raises(UserError, match="has no vector: write some words"):
        texts.embed("")


def test_another_model_and_one_without_a_text_tower_are_refused(root: Root, tmp_path: Path) -> None:
    small_root.finish(root)
    write_tiny_clip(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(UserError, match="did not embed"):
        find_texts(root, str(tmp_path / "other.safetensors"))
    with pytest.raises(UserError, match="has no text tower"):
        find_texts(root, "efficientnet-lite0")
    with pytest.raises(UserError, match="--model: 'none' is no known embedder"):
        find_texts(root, "none")
