"""Slopes are what benchmarks/results say: a new measurement that is not taken over is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation.costs import slopes
from curation.duplicates import clustering
from curation.duplicates.hamming import make_tables
from curation.recipe.config import DedupeConfig, DownloadConfig

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"


def rows_of(name: str, **wanted: Any) -> list[dict[str, Any]]:
    """Rows of a benchmark's result that have the values `wanted`."""
    rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return [row for row in rows if wanted.items() <= row.items()]


def test_ingest_is_the_line_between_its_two_largest_runs() -> None:
    (smaller,), (larger,) = rows_of("plan", rows=1_000_000), rows_of("plan", rows=4_000_000)
    each = 2 * (larger["seconds"] - smaller["seconds"]) / 3_000_000
    assert slopes.INGEST.value == pytest.approx(each, rel=0.01)


def test_download_goes_through_the_measured_points() -> None:
    names = {True: "224", False: "as they came"}
    for (resized, measured), (small, photo) in slopes.DOWNLOADS_MS.items():
        stored = names[resized] + ("" if measured else ", not measured")
        for pictures, milliseconds in (("small", small), ("photos", photo)):
            (row,) = rows_of("download", set=pictures, stored=stored, engine="ours, two processes")
            assert row["CPU ms a picture"] == pytest.approx(milliseconds, rel=0.01)
    (alone,) = rows_of("download", set="small", stored="224", engine="ours, two processes")
    (in_spark,) = rows_of("download", set="small", stored="224", engine="ours, curate download")
    assert in_spark["CPU ms a picture"] / alone["CPU ms a picture"] == pytest.approx(slopes.SPARK_SHARE, rel=0.01)
    slope = slopes.download_slope(DownloadConfig(), slopes.PHOTO_MEGAPIXELS, tls_ms=0.0)
    assert slope.value == pytest.approx(10e-3 * slopes.SPARK_SHARE, rel=0.01)


def test_a_picture_that_is_not_resized_costs_less_and_tls_is_added() -> None:
    resized = slopes.download_slope(DownloadConfig(), 0.5, tls_ms=2.0)
    kept = slopes.download_slope(DownloadConfig(resize_mode="no", measure=False), 0.5, tls_ms=2.0)
    assert 2e-3 < kept.value < resized.value
    assert slopes.download_slope(DownloadConfig(), 0.5, tls_ms=3.0).value == pytest.approx(resized.value + 1e-3)


def test_the_other_slopes_are_those_of_their_rows() -> None:
    (ingest,) = rows_of("scale", stage="ingest", rows=10_000_000)
    assert slopes.INGEST_HERE.value == pytest.approx(ingest["CPU s"] / 10_000_000, rel=0.01)
    (hashes,) = rows_of("dedupe_hashes", hashes=10_000_000, method="ours")
    assert len(make_tables(10_000_000, 6)) == hashes["tables"]
    each = 2 * hashes["seconds"] / hashes["tables"] / 10_000_000
    assert slopes.HASH_TABLE.value == pytest.approx(each, rel=0.01)
    (vectors,) = rows_of("dedupe_vectors", rows=1_000_000, method="ours, in Spark")
    config = DedupeConfig()
    assert slopes.estimate_vector_seconds(1_000_000, 512, config) == pytest.approx(vectors["CPU s"], rel=0.01)
    assert slopes.ROWS_PER_CENTROID == clustering.ROWS_PER_CENTROID
    assert slopes.SAMPLES_PER_CENTROID == clustering.SAMPLES_PER_CENTROID
    assert slopes.count_clusters(1_000_000, config) == clustering.num_centroids_for(1_000_000)
    for slope, rules in ((slopes.SELECT, "plain"), (slopes.SELECT_WINDOWS, "windows")):
        (row,) = rows_of("decisions", rules=rules, call="select", rows=10_000_000)
        assert slope.value == pytest.approx(row["CPU s"] / 10_000_000, rel=0.01)
    by_spark = ((slopes.SCORE, "score, Spark"), (slopes.PACK, "pack, Spark"))
    for slope, stage in (*by_spark, (slopes.EMBED_CPU, "embed")):
        (row,) = rows_of("flickr8k", stage=stage)
        assert slope.value == pytest.approx(row["CPU s"] / row["rows"], rel=0.02)
