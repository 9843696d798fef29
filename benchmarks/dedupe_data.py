"""Vectors with planted near-duplicates, and the pairs that brute force finds among them.

A mix of clusters whose sizes fall as 1 / rank (the largest of 1,000 holds an eighth of all rows), each with its own
spread. A fifth of the rows are copies of others at a cosine drawn evenly from [0.70, 1]. Clusters and rows vary along
axes whose variance falls as i^-0.9, copies differ from their originals along axes whose variance falls as i^-0.6: the
slopes of EfficientNet-lite0's embeddings of 2,150 photographs (0.89) and of nine altered copies of each (0.62).
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np

from curation.duplicates.clustering import normalise
from curation.progress import bar

DIM = 512
MIN_COSINE = 0.75
NUM_CLUSTERS = 1_000
SHARE_OF_COPIES = 0.2
LOWEST_COSINE = 0.70
VARIANCE_OF_ROWS, VARIANCE_OF_COPIES = -0.9, -0.6
BLOCK = 50_000
NUM_QUERIES = {100_000: 20_000}
FEWER_QUERIES = 5_000
QUERY_BLOCK = 1_000


def vectors(folder: Path, num_rows: int) -> np.ndarray:
    """`num_rows` vectors, float16 `[n, DIM]`, memory-mapped; made on the first call. Rows are in no order."""
    path = folder / f"vectors-{num_rows}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _make(path, folder / f"planted-{num_rows}.npy", num_rows)
    return np.asarray(np.load(path, mmap_mode="r"))


def planted(folder: Path, num_rows: int) -> np.ndarray:
    """int64 `[copies, 2]`: the row of each copy and the row that it was made of."""
    vectors(folder, num_rows)
    return np.asarray(np.load(folder / f"planted-{num_rows}.npy"))


def _make(path: Path, planted_path: Path, num_rows: int) -> None:
    rng = np.random.default_rng(num_rows)
    places = np.arange(1, DIM + 1, dtype=np.float32)
    axes, copy_axes = places ** (VARIANCE_OF_ROWS / 2), places ** (VARIANCE_OF_COPIES / 2)
    num_copies = int(SHARE_OF_COPIES * num_rows)
    num_base = num_rows - num_copies
    weights = 1 / np.arange(1, NUM_CLUSTERS + 1)
    centres = _directions(rng, NUM_CLUSTERS, axes)
    spread = rng.uniform(0.1, 0.3, NUM_CLUSTERS).astype(np.float32)
    cluster = rng.choice(NUM_CLUSTERS, num_base, p=weights / weights.sum())
    place = rng.permutation(num_rows)
    source = rng.integers(0, num_base, num_copies)
    temporary = path.with_suffix(".part.npy")
    made = np.lib.format.open_memmap(temporary, "w+", np.float16, (num_rows, DIM))
    for start in range(0, num_base, BLOCK):
        c = cluster[start : start + BLOCK]
        within = spread[c][:, None]
        block = np.sqrt(within) * centres[c] + np.sqrt(1 - within) * _directions(rng, len(c), axes)
        made[place[start : start + len(c)]] = normalise(block)
    for start in range(0, num_copies, BLOCK):
        originals = normalise(made[place[source[start : start + BLOCK]]])
        cosine = rng.uniform(LOWEST_COSINE, 1, (len(originals), 1)).astype(np.float32)
        away = _directions(rng, len(originals), copy_axes)
        away = normalise(away - (away * originals).sum(axis=1, keepdims=True) * originals)
        first = num_base + start
        made[place[first : first + len(originals)]] = cosine * originals + np.sqrt(1 - cosine**2) * away
    made.flush()
    np.save(planted_path, np.stack([place[num_base:], place[source]], axis=1))
    temporary.rename(path)


def _directions(rng: np.random.Generator, count: int, axes: np.ndarray) -> np.ndarray:
    return normalise(rng.standard_normal((count, DIM), dtype=np.float32) * axes)


def queries(num_rows: int) -> np.ndarray:
    """The rows whose pairs brute force looks up, drawn."""
    count = min(num_rows, NUM_QUERIES.get(num_rows, FEWER_QUERIES))
    return np.sort(np.random.default_rng(7).choice(num_rows, count, replace=False))


def brute_force(rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Sorted codes `left * n + right` of the pairs that faiss's exact index finds for the rows `asked`."""
    index = faiss.IndexFlatIP(rows.shape[1])
    for start in range(0, len(rows), BLOCK):
        index.add(normalise(rows[start : start + BLOCK]))
    found = [np.zeros(0, np.int64)]
    with bar(len(asked), "brute force", "row") as progress:
        for start in range(0, len(asked), QUERY_BLOCK):
            own = asked[start : start + QUERY_BLOCK]
            limits, _, others = index.range_search(normalise(rows[own]), MIN_COSINE)
            mine = np.repeat(own, np.diff(limits).astype(np.int64))
            found.append(codes(mine, others, len(rows)))
            progress.update(len(own))
    return np.unique(np.concatenate(found))


def codes(a: np.ndarray, b: np.ndarray, num_rows: int) -> np.ndarray:
    """int64 code of each pair of different rows, whichever comes first."""
    different = a != b
    a, b = a[different].astype(np.int64), b[different].astype(np.int64)
    return np.asarray(np.minimum(a, b) * num_rows + np.maximum(a, b))
