"""What must hold of the root's vectors before near-duplicates are looked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.npy import read_vectors_shape
from curation.storage import Root
from curation.tables import metadata_file, vectors_file
from jobs.spark.slices import cut_slices
from jobs.spark.tasks import map_units

NUM_READERS = 16
UNITS_PER_TASK = 64


class Size(NamedTuple):
    """Vectors of one unit: how many of which dimension, and the rows of metadata that they belong to."""

    unit: str
    rows: int
    dim: int
    uids: int


def read_size(root: Root, unit: str) -> Size:
    """Sizes of the vectors of `unit`, from header and footer. Raises UserError for what is missing or damaged."""
    uids = root.read_parquet(metadata_file(unit), [])
    remedy = f"delete the embeddings of unit {unit} and embed again"
    return Size(unit, *read_vectors_shape(root, vectors_file(unit), remedy), len(uids))


def find_dim(root: Root, units: Iterable[str]) -> int | None:
    """Dimension of the vectors of `units`, as the first of them says it; None without any. Raises as `read_size` does.

    An array without rows says it too, unless somebody else wrote it so.
    """
    return next((size.dim for size in (read_size(root, unit) for unit in units) if size.dim), None)


def check_vectors(root: Root, units: Sequence[str]) -> None:
    """Raise UserError naming what of `units` is damaged, of another dimension, or has not one vector a row."""
    with ThreadPoolExecutor(NUM_READERS) as pool:
        check_sizes(pool.map(lambda unit: read_size(root, unit), units))


def check_vectors_by_tasks(spark: SparkSession, root: Root, units: Sequence[str]) -> None:
    """As `check_vectors`; no file of a unit is opened by the driver."""
    groups = cut_slices(units, UNITS_PER_TASK)
    found = map_units(
        spark, "check vectors", groups, lambda group: [read_size(root, unit) for unit in group], noun="part"
    )
    check_sizes(chain.from_iterable(found))


def check_sizes(sizes: Iterable[Size]) -> None:
    """Raise UserError unless each unit has one vector a row of metadata, and all have one dimension."""
    first: Size | None = None
    for size in sizes:
        if size.rows != size.uids:
            raise UserError(
                f"Unit {size.unit} has {size.rows} vectors for {size.uids} rows of metadata: delete both, embed again."
            )
        first = first or (size if size.rows else None)
        if size.rows and first is not None and size.dim != first.dim:
            raise UserError(
                f"Unit {size.unit} has vectors of {size.dim} dimensions and unit {first.unit} of {first.dim}: "
                f"delete the folder embeddings and embed everything with one model."
            )
