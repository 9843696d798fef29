"""Which unit each row belongs to, as jobs/spark_ingest.py says it in Spark's SQL: by its domain and uid alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.plan import Spread

Numbers = npt.NDArray[np.int64]
_HEX_DIGITS = 8


def place_rows(domains: pa.Array, uids: pa.Array, spread: Spread) -> Numbers:
    """Number of the unit of each row, int64 `[n]`.

    A domain that `spread` places lies in its first unit, or in pieces by uid; others, and rows without a uid, by the
    hash of the domain.
    """
    encoded = domains.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    shared = np.array([int(_hash_domain(name), 16) % spread.num_shared for name in names], np.int64)
    placed = np.array([spread.placed.get(name, (0, 0)) for name in names], np.int64).reshape(-1, 2)
    first, pieces = placed[codes, 0], placed[codes, 1]
    units: Numbers = np.where((pieces > 0) & uids.is_valid().to_numpy(zero_copy_only=False), first, shared[codes])
    split = np.flatnonzero((pieces > 1) & uids.is_valid().to_numpy(zero_copy_only=False))
    if len(split):
        units[split] += _read_prefixes(uids.take(pa.array(split)).to_pylist()) % pieces[split]
    return units


def _hash_domain(domain: str) -> str:
    return hashlib.md5(domain.encode(), usedforsecurity=False).hexdigest()[:_HEX_DIGITS]


def _read_prefixes(uids: Sequence[str]) -> Numbers:
    return np.array([int(uid[:_HEX_DIGITS], 16) for uid in uids], np.int64)
