"""Exact quantiles of values that fit into memory, where ranking them is faster than counting them in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from curation.recipe.expressions import Quantile
from curation.recipe.rules import least_rank
from curation.selection.rule_set import MAX_PARTITIONS

MAX_VALUES = 30_000_000
"""Values that are held at once, 8 bytes each; the database counts more of them, out of core."""
Key = tuple[str | None, ...]


def rank_values(batches: Iterable[pa.RecordBatch], wanted: Quantile) -> list[tuple[Any, ...]] | None:
    """Rows as `curation.recipe.rules.quantile_sql` gives them, in no order: the key, then the value.

    `batches` are those of `values_sql`. None when there are too many values, or more than MAX_PARTITIONS keys.
    """
    parts, num_values = dict[Key, list[np.ndarray]](), 0
    for batch in batches:
        for key, values in _divide(batch, len(wanted.by)):
            parts.setdefault(key, []).append(values)
            num_values += len(values)
        if num_values > MAX_VALUES or len(parts) > MAX_PARTITIONS:
            return None
    if not parts and not wanted.by:
        return [(None,)]
    return [(*key, _take_ranked(np.concatenate(arrays), wanted)) for key, arrays in parts.items()]


def _divide(batch: pa.RecordBatch, num_keys: int) -> Iterator[tuple[Key, np.ndarray]]:
    """The known values of each combination of keys."""
    batch = batch.filter(batch["v"].is_valid())
    values = batch["v"].to_numpy()
    if not len(values):
        return
    combined = np.zeros(len(values), np.int64)
    for number in range(num_keys):
        column = batch[f"k{number}"].dictionary_encode("encode")
        # Combinations are numbered anew after each column, so that their product cannot overflow.
        combined = combined * len(column.dictionary) + column.indices.to_numpy()
        _, combined = np.unique(combined, return_inverse=True)
    order = np.argsort(combined, kind="stable")
    starts = np.flatnonzero(np.diff(combined[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        yield tuple(batch[f"k{number}"][rows[0]].as_py() for number in range(num_keys)), values[rows]


def _take_ranked(values: np.ndarray, wanted: Quantile) -> float:
    place = least_rank(wanted, len(values)) - 1
    values.partition(place)
    return float(values[place]) + 0.0  # -0.0 is 0.0, as for a database
