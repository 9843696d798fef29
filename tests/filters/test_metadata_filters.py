"""Filters over numbers from the metadata and the download: aspect ratio, CLIP, unsafe, watermark, aesthetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.base import READABLE

RANGES = {
    "clip_score": {"clip_similarity": ("clip_score", -1, 1), "clip_similarity_l14": ("clip_score_l14", -1, 1)},
    "unsafe_score": {"punsafe": ("unsafe_score", 0, 1)},
    "watermark_score": {"pwatermark": ("watermark_score", 0, 1)},
    "aesthetic_score": {"aesthetic": ("aesthetic_score", 0, 10)},
}
sides = st.one_of(st.none(), st.integers(-3, 40_000))
floats = st.one_of(st.none(), st.floats(width=32))


def scored(name: str, **columns: list[Any]) -> dict[str, list[Any]]:
    arrays = {key: pa.array(values, READABLE[key].type) for key, values in columns.items()}
    return filters.build(name, {}).apply(pa.RecordBatch.from_pydict(arrays)).to_pydict()


@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=20))
def test_aspect_ratio_is_longer_over_shorter(pairs: list[tuple[int | None, int | None]]) -> None:
    found = scored("aspect_ratio", width=[w for w, _ in pairs], height=[h for _, h in pairs])["aspect_ratio"]
    turned = scored("aspect_ratio", width=[h for _, h in pairs], height=[w for w, _ in pairs])["aspect_ratio"]
    assert found == turned
    for (width, height), ratio in zip(pairs, found, strict=True):
        if width is None or height is None or min(width, height) <= 0:
            assert ratio is None
        else:
            assert ratio == np.float32(max(width, height) / min(width, height)) and ratio >= 1


@pytest.mark.parametrize("name", sorted(RANGES))
@given(values=st.lists(floats, min_size=1, max_size=20))
def test_values_outside_the_range_are_unknown_and_others_unchanged(name: str, values: list[float | None]) -> None:
    for column, (written, low, high) in RANGES[name].items():
        others = {key: [None] * len(values) for key in RANGES[name]}
        found = scored(name, **(others | {column: values}))[written]
        for value, score in zip(values, found, strict=True):
            known = value is not None and not math.isnan(value) and low <= value <= high
            assert score == value if known else score is None


def test_the_absurd_similarity_of_laion400m_is_unknown() -> None:
    found = scored("clip_score", clip_similarity=[6016.0, 0.5], clip_similarity_l14=[None, None])
    assert found == {"clip_score": [None, 0.5], "clip_score_l14": [None, None]}
