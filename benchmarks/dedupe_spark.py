"""The embedding tier as `curate dedupe` runs it: `jobs.duplicates.vectors` in Spark on this machine's cores."""

from __future__ import annotations

import io
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.process_tree import ProcessTree
from curation.duplicates.blocks import SearchSettings
from curation.storage import Root
from curation.tables import vectors_file
from jobs.duplicates.vectors import EmbeddingSearch
from jobs.spark.session import session

ROWS_PER_UNIT = 10_000
MAX_BYTES, MAX_S = 20 << 30, 3_600.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Pairs, int64 each; wall and CPU seconds without the start of Spark; peak resident bytes of all processes."""

    left: np.ndarray
    right: np.ndarray
    seconds: float
    cpu_s: float
    peak_bytes: int


def in_spark(rows: np.ndarray, search: SearchSettings, max_training_rows: int, folder: Path) -> Measured:
    """The pairs of `rows` `[n, d]`, which `folder` holds as units of a root afterwards."""
    root = Root(folder)
    if not root.exists("root.json"):
        root.create()
    units = [f"00000000-{number:06d}" for number in range(-(-len(rows) // ROWS_PER_UNIT))]
    for number, unit in enumerate(units):
        sink = io.BytesIO()
        np.save(sink, rows[number * ROWS_PER_UNIT : (number + 1) * ROWS_PER_UNIT])
        root.publish(vectors_file(unit), sink.getvalue())
    spark = session("bench")
    places = f"cast(id div {ROWS_PER_UNIT} as int) as unit", f"cast(id % {ROWS_PER_UNIT} as int) as place"
    frame = spark.range(len(rows)).selectExpr("id as row", "hex(id) as uid", *places, "bigint(0) as text")
    tree = ProcessTree(os.getpid(), MAX_BYTES, MAX_S)
    tree.restart()
    began, started = time.time(), time.perf_counter()
    found = EmbeddingSearch(spark, root, "work", frame, units, search, max_training_rows).search()
    pairs = found.where("left < right").select("left", "right").toArrow()
    seconds = time.perf_counter() - started
    tree.stop()
    spark.stop()
    return Measured(
        left=pairs["left"].to_numpy(),
        right=pairs["right"].to_numpy(),
        seconds=seconds,
        cpu_s=tree.cpu_s(began, time.time()),
        peak_bytes=tree.peak_bytes,
    )
