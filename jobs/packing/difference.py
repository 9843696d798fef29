"""How the train shards of one version differ from those of another, counted by tasks: the driver holds no uid."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from curation.packing.difference import AFTER, BEFORE, name_counts
from curation.schema import TRAIN_INDEX
from curation.storage import Root
from jobs.spark.slices import read_files

_UID = pa.schema([TRAIN_INDEX.field("uid")])


def count_difference(spark: SparkSession, root: Root, before: Sequence[str], after: Sequence[str]) -> dict[str, int]:
    """As `curation.packing.difference.count_difference`."""
    old = read_files(spark, root, before, _UID).withColumn("versions", F.lit(BEFORE))
    new = read_files(spark, root, after, _UID).withColumn("versions", F.lit(AFTER))
    found = old.unionAll(new).groupBy("uid").agg(F.sum("versions").alias("versions"))
    counts = found.groupBy("versions").count().collect()
    return name_counts({row["versions"]: row["count"] for row in counts})
