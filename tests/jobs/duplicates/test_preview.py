from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.recipe.config import DedupeConfig, Recipe
from curation.storage import Root
from curation.tables import METADATA, metadata_file, vectors_file
from jobs.duplicates import preview_sample
from jobs.duplicates.preview import preview
from jobs.duplicates.preview_sample import FOUND, nearest, sample
from tests.support.picture_root import Fetched, fill, scene, set_vectors

DIM = 16
NO_SPARK: Any = None
"""What is refused is refused before a session is asked for anything."""


def encoded(seed: int, size: int = 24) -> bytes:
    sink = io.BytesIO()
    scene(seed, size).save(sink, "PNG")
    return sink.getvalue()


def recipe(**options: Any) -> Recipe:
    return Recipe(dedupe=DedupeConfig(**{"min_cosine": 0.9, **options}))


def twins(root: Root, count: int) -> dict[str, int]:
    """`count` pictures and as many near copies of them, by vector and hash; uid → number, twins sharing theirs."""
    pictures: list[Fetched] = [(f"{i}", encoded(i % count, 24 if i < count else 40), {}) for i in range(2 * count)]
    uids = fill(root, pictures, num_units=6)
    vectors = np.random.default_rng(0).standard_normal((count, DIM))
    together = np.concatenate([vectors, vectors + 0.01])
    set_vectors(root, dict(zip(uids, together, strict=True)))
    return {uid: i % count for i, uid in enumerate(uids)}


@pytest.mark.parametrize("embedded", [True, False])
def test_of_a_large_root_copies_come_with_their_originals(
    spark: SparkSession, root: Root, monkeypatch: pytest.MonkeyPatch, embedded: bool
) -> None:
    """A sixth of the pictures, drawn one by one, would hold a sixth of their twins."""
    number_of = twins(root, 60)
    monkeypatch.setattr(preview_sample, "MAX_ROWS", 20)
    monkeypatch.setattr(preview_sample, "NUM_PROBES", 2)
    table, vectors, how = sample(spark, root, embedded, 0.0)
    uids = table["uid"].to_pylist()
    assert 8 <= len(uids) == len(set(uids)) <= 20 and uids == sorted(uids)
    assert how.startswith(
        f"the {5 if embedded else 10} nearest to each of {2 if embedded else 0} by embedding and of 2"
    )
    numbers = [number_of[uid] for uid in uids]
    with_twin = sum(numbers.count(number) == 2 for number in numbers)
    assert with_twin >= 0.6 * len(uids)
    assert (vectors is not None) == embedded
    if vectors is not None:
        stored = dict[str, np.ndarray]()
        for unit in root.units("downloads"):
            names = root.read_parquet(metadata_file(unit))["uid"].to_pylist()
            stored |= dict(zip(names, np.load(io.BytesIO(root.read_bytes(vectors_file(unit)))), strict=True))
        assert np.array_equal(vectors, np.array([stored[uid] for uid in uids], np.float32))
    again = sample(spark, root, embedded, 0.0)[0]
    assert again.equals(table)


def test_the_nearest_are_one_of_each_content() -> None:
    found = np.array([(3, 0, 0, 7), (1, 1, 5, 8), (2, 0, 1, 7), (1, 0, 9, 8), (5, 0, 2, 9), (4, 0, 3, 6)], FOUND)
    assert nearest(found, 3)[["unit", "row"]].tolist() == [(0, 9), (0, 1), (0, 3)]
    assert len(nearest(found[:0], 3)) == 0


def test_exact_copies_and_pictures_that_cannot_be_shown_do_not_spoil_the_page(
    spark: SparkSession, root: Root, tmp_path: Path
) -> None:
    same = encoded(1)
    uids = fill(root, [("a", same, {}), ("b", same, {}), ("c", encoded(1, 40), {}), ("d", encoded(3), {})], num_units=1)
    shard = f"raw/{root.list('raw')[0]}"
    data = root.read_bytes(shard)
    root.publish(shard, data.replace(b"\xff\xd8\xff", b"\x00\x00\x00"))
    set_vectors(root, dict.fromkeys(uids[:3], np.ones(DIM)) | {uids[3]: -np.ones(DIM)})
    preview(spark, recipe(), root, str(tmp_path / "sheet.html"))
    text = (tmp_path / "sheet.html").read_text()
    assert "cosine 0.975 to 1.000: 1 pair" in text and "<p>3 of the" in text and "(all)" in text
    assert 'src="data:,"' in text


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("wide", "has vectors of 17 dimensions"),
        ("short", "has 1 vectors for 2 rows of metadata"),
        ("junk", "is no .npy file"),
        ("half", "lacks 1 units: run `curate embed` first"),
        ("model", "was embedded with clip.onnx:abc"),
        ("folder", "There is no folder .*nowhere"),
    ],
)
def test_what_dedupe_refuses_the_preview_refuses(root: Root, tmp_path: Path, fault: str, words: str) -> None:
    uids = fill(root, [(f"{i}", encoded(i), {}) for i in range(4)])
    set_vectors(root, dict(zip(uids, np.eye(4, DIM), strict=True)))
    unit = root.units("downloads")[1]
    if fault in ("wide", "short", "junk"):
        sink = io.BytesIO()
        np.save(sink, np.ones((2, DIM + 1) if fault == "wide" else (1, DIM), np.float16))
        root.publish(vectors_file(unit), b"junk" if fault == "junk" else sink.getvalue())
    elif fault == "half":
        root.remove(metadata_file(unit))
    elif fault == "model":
        root.begin_stage(METADATA, {"model": "clip.onnx:abc"})
    output = tmp_path / ("nowhere/sheet.html" if fault == "folder" else "sheet.html")
    with pytest.raises(UserError, match=words):
        preview(NO_SPARK, recipe(), root, str(output))
    assert not output.exists()
