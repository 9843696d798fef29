"""Spark's daemon of Python workers, with what every worker of ours imports: a worker then begins in no time.

Each task that fails ends its worker, as does a minute without work, and the next one would import the same again, which
takes a second.
"""

from __future__ import annotations

import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401
import pyspark.worker  # noqa: F401
from pyspark.daemon import manager

import curation.storage  # noqa: F401
import jobs.spark.tasks  # noqa: F401

if __name__ == "__main__":
    manager()
