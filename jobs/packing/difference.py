"""How the train shards of one version differ from those of another, counted by tasks: the driver holds no uid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from curation.schema import TRAIN_INDEX
from curation.storage import Root
from curation.terminal import write_error
from jobs.spark.slices import read_files

_UID = pa.schema([TRAIN_INDEX.field("uid")])
_BEFORE, _AFTER = 1, 2


def report_difference(spark: SparkSession, root: Root, previous: Mapping[str, Any] | None) -> None:
    """Say how the current train shards differ from `previous`, on standard error and in logs/pack-FP.json."""
    current = root.current("train_index")
    if previous is None or current is None or previous["fingerprint"] == current["fingerprint"]:
        return
    counts = count_difference(spark, root, previous["files"], current["files"])
    old, new = previous["fingerprint"], current["fingerprint"]
    root.publish_json(f"logs/pack-{new}.json", {"fingerprint": new, "previous": old, **counts})
    write_error(
        f"pack: {counts['num_samples']:,} samples; {counts['num_added']:,} added, {counts['num_removed']:,} removed "
        f"since {old}, whose shards stay in train/{old} until you delete them\n"
    )


def count_difference(spark: SparkSession, root: Root, before: Sequence[str], after: Sequence[str]) -> dict[str, int]:
    """Samples that the index files `after` have, that `before` have not, and that only `before` have.

    Files of `before` that are gone count as empty. A uid stands in a version at most once.
    """
    old = read_files(spark, root, before, _UID).withColumn("versions", F.lit(_BEFORE))
    new = read_files(spark, root, after, _UID).withColumn("versions", F.lit(_AFTER))
    found = old.unionAll(new).groupBy("uid").agg(F.sum("versions").alias("versions"))
    counts = {row["versions"]: row["count"] for row in found.groupBy("versions").count().collect()}
    added = counts.get(_AFTER, 0)
    return {
        "num_samples": added + counts.get(_BEFORE + _AFTER, 0),
        "num_added": added,
        "num_removed": counts.get(_BEFORE, 0),
    }
