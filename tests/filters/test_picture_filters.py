"""Filters over pictures and embeddings: blur, entropy, aesthetic head."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFilter

import filters
from curation.errors import UserError
from filters import opennsfw
from filters.base import IMAGE, IMAGE_EMBEDDING
from filters.blur import laplacian_variance
from filters.entropy import histogram_entropy
from tests.support.fake_onnx import FakeSession

grey = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=12))


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind)
    return sink.getvalue()


def scored(name: str, images: list[bytes | None], **options: object) -> list[float | None]:
    batch = pa.RecordBatch.from_pydict({"image": pa.array(images, IMAGE.type)})
    return filters.build(name, options).apply(batch).column(0).to_pylist()


def noise(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


@given(grey)
def test_laplacian_variance_equals_a_plain_loop(luma: np.ndarray) -> None:
    x = luma.astype(float)
    rows, columns = x.shape
    values = [
        x[i - 1, j] + x[i + 1, j] + x[i, j - 1] + x[i, j + 1] - 4 * x[i, j]
        for i in range(1, rows - 1)
        for j in range(1, columns - 1)
    ]
    assert laplacian_variance(luma) == pytest.approx(np.var(values), rel=1e-5, abs=1e-3)


@given(grey)
def test_entropy_equals_the_definition_and_ignores_the_order_of_pixels(luma: np.ndarray) -> None:
    counts = {v: (luma == v).mean() for v in np.unique(luma)}
    assert histogram_entropy(luma) == pytest.approx(-sum(p * math.log2(p) for p in counts.values()), abs=1e-9)
    assert histogram_entropy(np.sort(luma.reshape(-1))) == histogram_entropy(luma)


def test_blurring_lowers_sharpness_and_a_flat_picture_has_none() -> None:
    sharp = Image.fromarray(noise(100))
    blurred = [np.asarray(sharp.filter(ImageFilter.GaussianBlur(radius))) for radius in (0.5, 1, 2)]
    flat = np.full((100, 100), 90, np.uint8)
    found = scored("blur", [encoded(p) for p in (np.asarray(sharp), *blurred, flat)])
    assert found == sorted(found, reverse=True) and len(set(found)) == 5 and found[-1] == 0  # type: ignore[type-var]
    assert scored("entropy", [encoded(flat)]) == [0.0]
    assert scored("entropy", [encoded(np.arange(256, dtype=np.uint8).reshape(16, 16))]) == [8.0]


def test_the_size_of_the_picture_hardly_matters() -> None:
    picture = Image.fromarray(noise(128)).resize((256, 256), Image.Resampling.NEAREST)
    small, large = scored("blur", [encoded(noise(128)), encoded(np.asarray(picture))])
    assert small == pytest.approx(large, rel=0.01)


def test_what_cannot_be_decoded_is_unknown() -> None:
    jpeg = encoded(noise(64), "JPEG")
    images = [None, b"", b"<html>", jpeg[: len(jpeg) // 3], encoded(noise(2))]
    assert scored("blur", images) == [None] * 5
    assert [value is None for value in scored("entropy", images)] == [True, True, True, True, False]


@given(hnp.arrays(np.float32, (4, 6), elements=st.floats(-3, 3, width=32)), st.floats(-1, 1))
def test_aesthetic_head_is_the_linear_map_of_the_unit_vector(
    tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray, bias: float
) -> None:
    head = tmp_path_factory.mktemp("head") / "head.npz"
    weight = np.linspace(-2, 2, 6)
    np.savez(head, weight=weight[None], bias=np.array([bias]))
    batch = pa.RecordBatch.from_pydict({"image_embedding": pa.array([*rows, None, [0.0] * 6], IMAGE_EMBEDDING.type)})
    found = filters.build("aesthetic_head", {"head": str(head)}).apply(batch).column(0).to_pylist()
    assert found[-2:] == [None, None]
    for row, rating in zip(rows, found, strict=False):
        norm = np.linalg.norm(row.astype(float))
        if norm > 1e-3:
            assert rating == pytest.approx(row.astype(float) @ weight / norm + bias, abs=1e-4)


def test_an_embedding_of_another_model_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "head.npz", weight=np.ones((1, 512)), bias=np.ones(1))
    item = filters.build("aesthetic_head", {"head": str(tmp_path / "head.npz")})
    batch = pa.RecordBatch.from_pydict({"image_embedding": pa.array([[1.0] * 768], IMAGE_EMBEDDING.type)})
    with pytest.raises(UserError, match="embeddings of 512 numbers, but the run's have 768"):
        item.apply(batch)


@pytest.mark.parametrize(("name", "width"), [("sa_0_4_vit_b_32_linear.pth", 512), ("sa_0_4_vit_l_14_linear.pth", 768)])
def test_laions_own_heads_load(shared_data: Path, name: str, width: int) -> None:
    pytest.importorskip("torch")
    item = filters.build("aesthetic_head", {"head": str(shared_data.parent / "models" / name)})
    row = np.random.default_rng(0).normal(size=width).astype(np.float32)
    batch = pa.RecordBatch.from_pydict({"image_embedding": pa.array([row, row * 7], IMAGE_EMBEDDING.type)})
    once, scaled = item.apply(batch).column(0).to_pylist()
    assert once == pytest.approx(scaled) and 0 < once < 10


def test_a_file_that_is_no_head_is_refused(tmp_path: Path) -> None:
    (tmp_path / "head.npz").write_bytes(b"no array")
    item = filters.build("aesthetic_head", {"head": str(tmp_path / "head.npz")})
    batch = pa.RecordBatch.from_pydict({"image_embedding": pa.array([[1.0]], IMAGE_EMBEDDING.type)})
    with pytest.raises(UserError, match="holds no linear head"):
        item.apply(batch)


def test_opennsfw_input_is_bgr_less_its_mean() -> None:
    red = np.zeros((30, 50, 3), np.uint8)
    red[..., 0] = 255
    found = opennsfw.pixels(encoded(red))
    assert found is not None and found.shape == (224, 224, 3) and found.dtype == np.float32
    assert np.abs(found - np.array([0 - 104, 0 - 117, 255 - 123])).max() <= 2  # JPEG rounds
    assert opennsfw.pixels(b"no picture") is None


def test_opennsfw_scores_belong_to_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opennsfw, "_session", lambda path: FakeSession())
    white, black = encoded(np.full((9, 9), 255, np.uint8)), encoded(np.zeros((9, 9), np.uint8))
    found = scored("opennsfw", [None, white, b"", black, white], model="open-nsfw.onnx")
    assert found == [None, 1.0, None, 0.0, 1.0]
    assert scored("opennsfw", [None, b""], model="open-nsfw.onnx") == [None, None]


def test_without_onnxruntime_or_with_a_bad_file_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="pip install onnxruntime|is no ONNX model"):
        scored("opennsfw", [encoded(noise(8))], model=str(tmp_path / "bad.onnx"))
