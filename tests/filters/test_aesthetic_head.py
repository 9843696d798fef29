"""Files of a linear head, in both forms, and what is refused in one sentence before anything is scored."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import filters
from curation.errors import UserError
from filters import aesthetic_head
from filters.base import IMAGE_EMBEDDING


def rate(head: Path) -> float:
    """The rating of one embedding."""
    filter_ = filters.build("aesthetic_head", {"head": str(head)})
    batch = pa.record_batch(
        [["0" * 32], ["ok"], pa.array([[3.0, 4.0]], IMAGE_EMBEDDING.type)], ["uid", "status", "image_embedding"]
    )
    value: float = filter_.apply(batch)["aesthetic_head"][0].as_py()
    return value


def test_a_head_is_read_from_both_kinds_of_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    weight, bias = np.array([[1.0, 2.0]], np.float32), np.array([0.5], np.float32)
    np.savez(tmp_path / "head.npz", weight=weight, bias=bias)
    torch.save({"weight": torch.tensor(weight), "bias": torch.tensor(bias)}, tmp_path / "head.pth")
    assert rate(tmp_path / "head.npz") == rate(tmp_path / "head.pth") == pytest.approx(0.6 + 1.6 + 0.5)


def write_npz(file: Path, **arrays: Any) -> None:
    with file.open("wb") as f:
        np.savez_compressed(f, **arrays)


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
@pytest.mark.parametrize("kind", ["text", "empty", "half a zip", "objects", "words", "large", "a bomb", "a pickle"])
def test_what_holds_no_head_is_one_sentence(kind: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"head{suffix}"
    if kind == "objects":
        write_npz(file, weight=np.array([{}], dtype=object), bias=np.ones(1))
    elif kind == "words":
        write_npz(file, weight=np.array(["a"]), bias=np.ones(1))
    elif kind == "a bomb":
        write_npz(file, weight=np.zeros(1 << 24), bias=np.ones(1))
    elif kind == "a pickle":
        pytest.importorskip("torch").save({"weight": random.Random(0)}, file)
    else:
        write_npz(file, weight=np.ones((1, 4)), bias=np.ones(1))
        contents = {"text": b"no head", "empty": b"", "large": bytes(aesthetic_head.MAX_BYTES + 1)}
        file.write_bytes(contents.get(kind, file.read_bytes()[:-40]))
    with pytest.raises(UserError, match=f"head{suffix} holds no linear head") as caught:
        filters.build("aesthetic_head", {"head": str(file)}).check_ready()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
