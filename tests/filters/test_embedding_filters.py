"""Scores of vectors equal a loop by hand."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pyarrow as pa
import pytest

import filters
from curation.errors import UserError
from filters._embeddings import EmbeddingFilter
from filters.base import IMAGE_EMBEDDING

RNG = np.random.default_rng(4)
IMAGES, TEXTS, PROMPTS = (RNG.standard_normal((n, 16)).astype(np.float32) * 3 for n in (6, 6, 4))


def batch(images: list[object], texts: list[object]) -> pa.RecordBatch:
    columns = [pa.array(rows, IMAGE_EMBEDDING.type) for rows in (images, texts)]
    return pa.RecordBatch.from_arrays(columns, ["image_embedding", "text_embedding"])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(y) ** 2 for y in b))


def test_clip_cosine_is_the_cosine_of_each_pair() -> None:
    found = filters.build("clip_cosine", {}).apply(batch([*IMAGES], [*TEXTS])).column(0).to_pylist()
    assert found == pytest.approx([cosine(a, b) for a, b in zip(IMAGES, TEXTS, strict=True)], abs=1e-4)


def test_what_has_no_direction_has_no_cosine() -> None:
    zero, nan, huge = [0.0] * 16, [math.nan] * 16, [1e30] * 16
    rows = batch([None, zero, nan, huge, IMAGES[0]], [TEXTS[0], TEXTS[0], TEXTS[0], huge, None])
    found = filters.build("clip_cosine", {}).apply(rows).column(0).to_pylist()
    assert found[:3] == [None] * 3 and found[3] == pytest.approx(1) and found[4] is None
    assert filters.build("clip_cosine", {}).apply(batch([None], [None])).column(0).to_pylist() == [None]


def build_zero_shot(name: str = "zero_shot", **options: object) -> EmbeddingFilter:
    given = {"prompts": ["a drawing", "a sketch"], "against": ["a photo", "a picture"], "scale": 20.0}
    item = filters.build(name, {"filter": "zero_shot", **given, **options})
    assert isinstance(item, EmbeddingFilter)
    return item


def test_zero_shot_is_the_softmax_over_all_prompts() -> None:
    item = build_zero_shot()
    asked: list[str] = []
    bound = item.bind(lambda texts: asked.extend(texts) or PROMPTS)  # type: ignore[func-returns-value]
    found = bound.apply(batch([*IMAGES, None], [None] * 7)).column(0).to_pylist()
    assert asked == ["a drawing", "a sketch", "a photo", "a picture"] and found.pop() is None
    for image, score in zip(IMAGES, found, strict=True):
        odds = [math.exp(20 * cosine(image, prompt)) for prompt in PROMPTS]
        assert score == pytest.approx(sum(odds[:2]) / sum(odds), abs=1e-4)


def test_prompts_are_bound_before_they_score() -> None:
    with pytest.raises(TypeError, match="call bind"):
        build_zero_shot().apply(batch([*IMAGES], [*TEXTS]))


@pytest.mark.parametrize("wrong", [{"prompts": []}, {"against": [" "]}, {"scale": 0.0}])
def test_bad_prompts_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"zero_shot\]: (prompts and against|scale must)"):
        build_zero_shot(**wrong)


def test_a_filter_under_another_name_writes_columns_of_that_name_also_in_another_process() -> None:
    item = build_zero_shot("watermark_score", embeddings="l14").bind(lambda texts: PROMPTS)
    other: EmbeddingFilter = pickle.loads(pickle.dumps(item))
    found = other.apply(batch([*IMAGES], [*TEXTS]))
    assert found.schema.names == ["watermark_score"] and other.embeddings == "l14"
    assert found.equals(item.apply(batch([*IMAGES], [*TEXTS])))
    assert other.config() == item.config() and item.config()["writes"] == {"watermark_score": "float"}
    several = filters.build("english", {"filter": "language"})
    assert several.writes.names == ["english_language", "english_language_probability"]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("width", "clip_cosine", "would be called by the name of another column"),
        ("L/14", "clip_cosine", "small letters, digits and _ only"),
        ("mine", "clip_cosin", "did you mean clip_cosine"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        filters.build(name, {"filter": kind})


def test_earlier_records_of_heads_and_centroids_stay_valid(tmp_path: object) -> None:
    np.savez(f"{tmp_path}/head.npz", weight=np.ones((1, 16)), bias=np.ones(1))
    options = {"head": f"{tmp_path}/head.npz"}
    assert "embeddings" not in filters.build("aesthetic_head", options).config()["options"]
    named = filters.build("aesthetic_head", {**options, "embeddings": "l14"})
    assert named.config()["options"]["embeddings"] == "l14"
