"""Ten million 64-bit hashes with planted neighbours: every pair within six bits, by banding and by brute force."""

from __future__ import annotations

import os
import time
from typing import Any

import faiss
import numpy as np

from curation.duplicates.hamming import find_near_values, make_tables
from tests.support.memory import memory_bytes

NUM_HASHES = 10_000_000
NUM_PLANTED = 200_000
NUM_QUERIES = 2_000
MAX_DISTANCE = 6
NOTES = [
    f"Random hashes, {NUM_PLANTED:,} of them one to {MAX_DISTANCE} bits from another one. `planted missed` is over all "
    "of them; `missed` is against an exhaustive search (faiss IndexBinaryFlat) of 2,000 drawn hashes, half of them "
    "planted ones; its seconds and comparisons are those of a full search, from this share.",
]


def measure_hashes() -> list[dict[str, Any]]:
    """One row for ours and one for brute force."""
    hashes, planted = _make_hashes()
    started = time.perf_counter()
    smaller, larger, _ = find_near_values(hashes, MAX_DISTANCE, num_threads=len(os.sched_getaffinity(0)))
    seconds = time.perf_counter() - started
    peak = memory_bytes("VmHWM") / 2**30
    found = set(zip(smaller.tolist(), larger.tolist(), strict=True))
    rng = np.random.default_rng(1)
    asked = np.concatenate([rng.choice(hashes, NUM_QUERIES // 2), rng.choice(planted[:, 0], NUM_QUERIES // 2)])
    started = time.perf_counter()
    expected = _exhaustive(hashes, asked)
    share = NUM_QUERIES / NUM_HASHES
    common = {"hashes": NUM_HASHES, "bits": MAX_DISTANCE}
    exhaustive = {"pairs": None, "planted missed": None, "missed": 0, "tables": None}
    return [
        common
        | {
            "method": "ours",
            "seconds": seconds,
            "pairs": len(found),
            "planted missed": sum((min(a, b), max(a, b)) not in found for a, b in planted.tolist()),
            "missed": len(expected - found),
            "tables": len(make_tables(NUM_HASHES, MAX_DISTANCE)),
            "peak GB": peak,
        },
        common
        | {"method": "faiss flat", "seconds": (time.perf_counter() - started) / share}
        | exhaustive
        | {"peak GB": None},
    ]


def _make_hashes() -> tuple[np.ndarray, np.ndarray]:
    """The hashes, and the planted pairs uint64 `[NUM_PLANTED, 2]`, all different from each other."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, NUM_HASHES, dtype=np.uint64)
    near = hashes[:NUM_PLANTED].copy()
    bits = np.argsort(rng.random((NUM_PLANTED, 64)), axis=1)[:, :MAX_DISTANCE].astype(np.uint64)
    count = rng.integers(1, MAX_DISTANCE + 1, NUM_PLANTED)
    for place in range(MAX_DISTANCE):
        near ^= np.where(place < count, np.uint64(1) << bits[:, place], np.uint64(0))
    hashes[-NUM_PLANTED:] = near
    return rng.permutation(hashes), np.stack([hashes[:NUM_PLANTED], near], axis=1)


def _exhaustive(hashes: np.ndarray, asked: np.ndarray) -> set[tuple[int, int]]:
    index = faiss.IndexBinaryFlat(64)
    index.add(hashes.view(np.uint8).reshape(-1, 8))
    limits, _, others = index.range_search(asked.view(np.uint8).reshape(-1, 8), MAX_DISTANCE + 1)
    mine = np.repeat(asked, np.diff(limits).astype(np.int64)).tolist()
    pairs = zip(mine, hashes[others].tolist(), strict=True)
    return {(min(a, b), max(a, b)) for a, b in pairs if a != b}
