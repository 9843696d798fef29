"""Frames that are computed once and used often."""

from __future__ import annotations

from pyspark import StorageLevel
from pyspark.sql import DataFrame


def held(frame: DataFrame) -> DataFrame:
    """`frame`, computed now and kept on the executors' disks until nobody refers to it, without its history.

    A persisted frame drags its whole plan along; the plans of rounds that are made from each other would double with
    every join until the driver is full. An executor that is lost takes its share with it, as in
    jobs/duplicates/components.py.
    """
    return frame.localCheckpoint(storageLevel=StorageLevel.DISK_ONLY)
