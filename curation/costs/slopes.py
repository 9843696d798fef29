"""Measured slopes: what one row costs a stage, each with its source.

The figures are those of benchmarks/results, measured on two cores; a test compares them. CPU seconds are of one core.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from curation.recipe.config import DedupeConfig, DownloadConfig

SMALL_MEGAPIXELS, PHOTO_MEGAPIXELS = 0.083, 2.5
"""Mean sizes of the two sets of benchmarks/results/download.md."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """`value` is CPU seconds of one row unless its `unit` says otherwise."""

    name: str
    value: float
    source: str
    unit: str = "CPU s a row"


INGEST = Slope(name="ingest", value=3.03e-5, source="benchmarks/results/plan.md, from 1 M to 4 M rows on two cores")
INGEST_HERE = Slope(
    name="ingest, on one machine",
    value=4.781e-6,
    source="benchmarks/results/scale.md: 10 M rows in 47.8 CPU s by processes and DuckDB on two cores",
)
SPARK_SHARE = 1.24
"""CPU of `curate download` in Spark, of that of its tasks alone (benchmarks/results/download.md, small at 224)."""
DOWNLOADS_MS = {
    # (resized, measured): CPU ms of one picture of each set, two processes.
    (True, True): (1.12, 10.0),
    (True, False): (0.944, 9.85),
    (False, True): (0.97, 7.35),
    (False, False): (0.171, 1.56),
}
EMBED_CPU = Slope(
    name="embed, efficientnet_lite0",
    value=0.0364,
    source="benchmarks/results/flickr8k.md: 171 CPU s for 4,700 pictures, the start of Spark included; an upper bound",
)
CPU_GFLOPS = Slope(
    name="embed, other models on cores",
    value=75.0,
    source="benchmarks/results/trainer.md: eva02-b-16 at 0.15 TFLOP/s on two cores, float32",
    unit="GFLOP/s a core",
)
HASH_TABLE = Slope(
    name="dedupe, hashes",
    value=4.647e-8,
    source="benchmarks/results/dedupe_hashes.md: 10 M hashes and 84 tables in 19.5 s on two cores",
    unit="CPU s a hash and table",
)
VECTORS = Slope(
    name="dedupe, vectors",
    value=441e-6,
    source="benchmarks/results/dedupe_vectors.md: 1 M vectors of 512 dimensions in Spark, 441 CPU s; "
    "grows with exponent 1.1 (measured 0.1 to 1 M rows)",
    unit="CPU s a vector at 1 M",
)
VECTOR_ROWS, VECTOR_DIMS, VECTOR_EXPONENT = 1e6, 512, 1.1
INSIDE_SHARE = 0.39
"""Of the cosines at 1 M rows, those inside clusters: 1.4e9 in each of two clusterings (docs/dedupe.md), of 7.15e9."""
ROWS_PER_CENTROID, SAMPLES_PER_CENTROID = 50, 16
"""Those of curation/duplicates/clustering.py, which imports faiss."""
SCORE = Slope(
    name="score",
    value=0.0029,
    source="benchmarks/results/flickr8k.md: 13.8 CPU s by Spark for 4,700 pictures, its start included; an upper bound",
)
SELECT = Slope(
    name="select", value=1.458e-6, source="benchmarks/results/decisions.md: plain rules at 10 M rows, on one machine"
)
SELECT_WINDOWS = Slope(
    name="select, rules over all rows",
    value=2.424e-6,
    source="benchmarks/results/decisions.md: windows at 10 M rows, on one machine",
)
PACK = Slope(
    name="pack",
    value=0.0048,
    source="benchmarks/results/flickr8k.md: 22.2 CPU s by Spark for 4,660 pictures, its start included; an upper bound",
)


def download_slope(config: DownloadConfig, megapixels: float, tls_ms: float) -> Slope:
    """CPU of one row of a download, by the line through the two measured sizes of pictures."""
    small, photo = DOWNLOADS_MS[config.resize_mode != "no", config.measure]
    each = (photo - small) / (PHOTO_MEGAPIXELS - SMALL_MEGAPIXELS)
    milliseconds = SPARK_SHARE * max(0.0, small + each * (megapixels - SMALL_MEGAPIXELS)) + tls_ms
    return Slope(
        name="download",
        value=milliseconds / 1e3,
        source=f"benchmarks/results/download.md: the line through pictures of {SMALL_MEGAPIXELS} and "
        f"{PHOTO_MEGAPIXELS} megapixels at {megapixels:g}, in Spark; {tls_ms:g} ms of it assumed for TLS and DNS",
    )


def count_clusters(num_rows: float, config: DedupeConfig) -> float:
    """Clusters that `num_rows` vectors get: as many as are wanted, and no more than the sample trains."""
    wanted = config.num_centroids or max(1.0, num_rows / ROWS_PER_CENTROID)
    return min(wanted, max(1.0, config.max_training_rows / SAMPLES_PER_CENTROID))


def estimate_vector_seconds(num_rows: float, dim: int, config: DedupeConfig) -> float:
    """CPU seconds to search `num_rows` vectors of `dim` numbers for near pairs.

    Where the sample trains fewer clusters than are wanted, each is larger, up to `max_cluster_rows`, and the cosines
    inside grow with it: an upper bound, since larger clusters are clustered again.
    """
    growth = math.pow(num_rows / VECTOR_ROWS, VECTOR_EXPONENT) * VECTOR_ROWS
    per_cluster = min(num_rows / count_clusters(num_rows, config), config.max_cluster_rows)
    larger = max(1.0, per_cluster / ROWS_PER_CENTROID)
    return growth * VECTORS.value * dim / VECTOR_DIMS * (1 - INSIDE_SHARE + INSIDE_SHARE * larger)
