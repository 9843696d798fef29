from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.recipe.config import DedupeConfig, Recipe
from curation.schema import DOWNLOADS
from curation.storage import Root
from curation.tables import METADATA, metadata_file, vectors_file
from jobs.duplicates.preview import _place_bin_edges, preview
from tests.support.picture_root import fill, scene, set_vectors

DIM = 16
NO_SPARK: Any = None
"""What is refused is refused before a session is asked for anything."""


def encoded(seed: int, size: int = 24) -> bytes:
    sink = io.BytesIO()
    scene(seed, size).save(sink, "PNG")
    return sink.getvalue()


def recipe(**options: Any) -> Recipe:
    return Recipe(dedupe=DedupeConfig(**{"min_cosine": 0.9, **options}))


def test_exact_copies_and_pictures_that_cannot_be_shown_do_not_spoil_the_page(
    spark: SparkSession, root: Root, tmp_path: Path
) -> None:
    same = encoded(1)
    uids = fill(root, [("a", same, {}), ("b", same, {}), ("c", encoded(1, 40), {}), ("d", encoded(3), {})], num_units=1)
    shard = f"raw/{root.list('raw')[0]}"
    data = root.read_bytes(shard)
    spoilt = data.replace(b"\xff\xd8\xff", b"\x00\x00\x00")
    root.publish(shard, spoilt)
    # What was stored is no picture, which is something else than a stored picture that rots.
    unit = f"downloads/{root.units('downloads')[0]}.parquet"
    rows = root.read_parquet(unit).to_pylist()
    for row in rows:
        row["stored_sha256"] = hashlib.sha256(spoilt[row["offset"] : row["offset"] + row["size"]]).hexdigest()
    root.publish_parquet(unit, pa.Table.from_pylist(rows, DOWNLOADS))
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


@pytest.mark.parametrize("limit", [0.765, 0.75, 0.999, 1.0, None, 0.3])
def test_bins_of_the_preview_meet_at_the_limit(limit: float | None) -> None:
    edges = _place_bin_edges(*([] if limit is None else [limit]))
    widths = -np.diff(edges)
    assert edges[0] == 1 and (widths > 0).all() and widths.max() <= 0.0251
    assert limit is None or limit < 0.5 or limit in edges


def test_both_ends_of_the_range_of_doubt_are_edges_of_bins() -> None:
    edges = _place_bin_edges(0.7, 0.86)
    assert {0.7, 0.86} <= set(edges.tolist()) and (np.diff(edges) < 0).all()


def test_the_page_says_of_pairs_in_doubt_what_a_second_look_says(
    spark: SparkSession, root: Root, tmp_path: Path
) -> None:
    pictures = [("a", encoded(1, 96), {}), ("smaller", encoded(1, 80), {}), ("another", encoded(5, 96), {})]
    uids = fill(root, pictures, num_units=1)
    near = np.linalg.cholesky(np.full((3, 3), 0.7) + 0.3 * np.eye(3))
    set_vectors(root, dict(zip(uids, np.pad(near, ((0, 0), (0, DIM - 3))), strict=True)))
    preview(spark, recipe(verify_from=0.6), root, str(tmp_path / "sheet.html"))
    text = (tmp_path / "sheet.html").read_text()
    assert "in doubt" in text and text.count(" not verified<") == 2 and text.count(" verified<") == 3
