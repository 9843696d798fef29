"""Edges between pictures with near perceptual hashes, found on this machine: those of jobs/duplicates/hashes.py.

Pictures of one hash and one text form a class. A row is linked with the best rows of its class and of near classes, at
most MAX_NEIGHBOURS. A row is cut short when it has more of them, or when its hash was cut short.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from curation.duplicates import hamming
from curation.progress import track
from curation.sorting import Column, count_bits, sort_rows
from curation.workers import map_ahead

NUM_HUBS = 8
"""Number of the best rows of a class that other rows are linked with."""
MAX_NEIGHBOURS = 64
"""Number of better rows that a row is linked with."""
CHUNK = 1 << 22
"""Pairs of rows that are made at a time, about."""
_NONE = np.iinfo(np.int64).max
_DISTANCE_BITS = 4


@dataclass(frozen=True)
class Edges:
    """Pairs of rows that are alike, sorted, each once: `left` < `right` int64 and `distance` uint8 `[n]` each."""

    left: np.ndarray
    right: np.ndarray
    distance: np.ndarray

    def __len__(self) -> int:
        return len(self.left)


NO_EDGES = Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))


def unite_edges(parts: list[Edges]) -> Edges:
    """All edges of `parts`, sorted; of one pair the nearest."""
    left, right = (np.concatenate([getattr(e, name) for e in [NO_EDGES, *parts]]) for name in ("left", "right"))
    distance = np.concatenate([e.distance for e in [NO_EDGES, *parts]])
    bits = count_bits(int(right.max(initial=0)))
    keys = [Column(left.view(np.uint64), bits), Column(right.view(np.uint64), bits)]
    order = sort_rows([*keys, Column(distance.astype(np.uint64), _DISTANCE_BITS)], len(left)).order
    left, right, distance = left[order], right[order], distance[order]
    is_first = np.ones(len(left), bool)
    is_first[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return Edges(left[is_first], right[is_first], distance[is_first])


@dataclass(frozen=True)
class HashedRows:
    """Rows with their hashes (uint64) and the numbers of their texts (uint64), sorted by hash, text and row."""

    hashes: np.ndarray
    texts: np.ndarray | None
    rows: np.ndarray

    def choose(self, mask: np.ndarray) -> HashedRows:
        """Those rows for which `mask`, bool `[n]`, holds."""
        texts = None if self.texts is None else self.texts[mask]
        return HashedRows(self.hashes[mask], texts, self.rows[mask])


def sort_hashes(hashes: np.ndarray, texts: np.ndarray | None, rows: np.ndarray) -> HashedRows:
    """`rows` (int64 `[n]`) with `hashes` (uint64) and, where they count, `texts` (int64), sorted."""
    keys = [Column(hashes)]
    if texts is not None:
        texts = np.unique(texts, return_inverse=True)[1].astype(np.uint64)
        keys.append(Column(texts, count_bits(int(texts.max(initial=0)))))
    keys.append(Column(rows.view(np.uint64), count_bits(int(rows.max(initial=0)))))
    order = sort_rows(keys, len(rows)).order
    return HashedRows(hashes[order], None if texts is None else texts[order], rows[order])


class Classes:
    """The classes of sorted rows: `starts` are the places of their first rows, `sizes` their numbers of rows."""

    def __init__(self, sorted_rows: HashedRows) -> None:
        hashes, texts = sorted_rows.hashes, sorted_rows.texts
        is_first = np.ones(len(hashes), bool)
        is_first[1:] = hashes[1:] != hashes[:-1]
        if texts is not None:
            is_first[1:] |= texts[1:] != texts[:-1]
        self._has_texts = texts is not None
        self.rows = sorted_rows.rows
        self.starts = np.flatnonzero(is_first)
        self.sizes = np.diff(self.starts, append=len(hashes))
        self.hashes = hashes[self.starts]
        self.texts = np.zeros(len(self.starts), np.uint64) if texts is None else texts[self.starts]

    def __len__(self) -> int:
        return len(self.starts)

    def list_hashes(self) -> np.ndarray:
        """The different hashes, rising."""
        return hamming.sort_different(self.hashes) if self._has_texts else self.hashes

    def rank(self) -> hamming.Classes:
        """What hashes that crowd are compared by."""
        return hamming.Classes(self.hashes, self.texts.view(np.int64), self.rows[self.starts])

    def link(self, a: np.ndarray, b: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs of classes of one text whose hashes are a pair (a, b), both ways, and of each class with itself
        that has several rows: numbers of the classes whose rows are better, of those whose are worse, the distance.
        """
        values, first, counts = np.unique(self.hashes, return_index=True, return_counts=True)
        one, other = np.searchsorted(values, np.concatenate([a, b])), np.searchsorted(values, np.concatenate([b, a]))
        distance = np.concatenate([distance, distance])
        pair, place = expand(counts[one])
        source = first[one[pair]] + place
        target, other, distance = first[other[pair]], other[pair], distance[pair]
        if self._has_texts:
            target = self._find(values, other, self.texts[source])
            source, target, distance = source[target >= 0], target[target >= 0], distance[target >= 0]
        several = np.flatnonzero(self.sizes > 1)
        none = np.zeros(len(several), np.uint8)
        return np.r_[source, several], np.r_[target, several], np.r_[distance, none]

    def _find(self, values: np.ndarray, hashes: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """The class of each hash, given by its place in `values`, and text; -1 for none."""
        bits = np.uint64(count_bits(int(self.texts.max(initial=0))))
        own = np.searchsorted(values, self.hashes).astype(np.uint64) << bits | self.texts
        wanted = hashes.astype(np.uint64) << bits | texts
        found = np.searchsorted(own, wanted)
        is_there = own[np.minimum(found, len(own) - 1)] == wanted
        return np.where(is_there, found, -1)


def expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For `counts` things each: the number of the count, and that of the thing in it."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


class PerceptualSearch:
    """Search of `rows` for hashes at most `max_hamming` bits apart, by `num_threads` threads."""

    def __init__(self, rows: HashedRows, max_hamming: int, num_threads: int) -> None:
        self._rows, self._max_hamming, self._num_threads = rows, max_hamming, num_threads

    def search(self, removed: np.ndarray | None = None, cut: np.ndarray | None = None) -> tuple[Edges, np.ndarray]:
        """Edges, and the rows that were cut short, int64 rising.

        Compares all rows; or those that are not `removed`, when a row of `cut` is among those of a comparison. Both
        are bool, by row.
        """
        rows = self._rows if removed is None else self._rows.choose(~removed[self._rows.rows])
        about = None if cut is None else np.unique(self._rows.hashes[cut[self._rows.rows]])
        classes = Classes(rows)
        a, b, distance = self._find_near_hashes(classes, about)
        crowded, apart = np.unique(a[a == b]), a != b
        edges, beyond = _link_rows(classes, *classes.link(a[apart], b[apart], distance[apart]))
        cut_short = np.unique(np.r_[beyond, rows.rows[np.isin(rows.hashes, crowded)]])
        return edges, cut_short

    def _find_near_hashes(self, classes: Classes, about: np.ndarray | None) -> hamming.Pairs:
        """Near, different hashes, rarely twice; a pair of a hash with itself says that it was cut short."""
        parts: list[hamming.Pairs] = [(classes.hashes[:0], classes.hashes[:0], np.zeros(0, np.uint8))]
        if len(classes):
            tables = hamming.make_tables(len(classes), self._max_hamming)
            values = classes.list_hashes()

            def search_table(table: hamming.Table) -> list[hamming.Pairs]:
                return list(hamming.search(values, table, self._max_hamming, classes.rank, about))

            with ThreadPoolExecutor(self._num_threads) as pool:
                found = map_ahead(pool, search_table, tables, self._num_threads)
                for pairs in track(found, len(tables), "dedupe, near hashes", "table"):
                    parts += pairs
        a, b, distance = (np.concatenate(column) for column in zip(*parts, strict=True))
        return a, b, distance


def _link_rows(
    classes: Classes, source: np.ndarray, target: np.ndarray, distance: np.ndarray
) -> tuple[Edges, np.ndarray]:
    """The edges of rows of the classes `target` with the best rows of `source`, and the rows that were cut short."""
    link, place = expand(np.minimum(classes.sizes[source], NUM_HUBS))
    one = classes.rows[classes.starts[source[link]] + place]
    keys = [target[link].view(np.uint64), one.view(np.uint64)]
    columns = [Column(key, count_bits(int(key.max(initial=0)))) for key in keys]
    near = distance[link]
    order = sort_rows([*columns, Column(near.astype(np.uint64), _DISTANCE_BITS)], len(one)).order
    one, near, of = one[order], near[order], target[link][order]
    targets, starts, counts = np.unique(of, return_index=True, return_counts=True)
    beyond = np.full(len(targets), _NONE)
    full = np.flatnonzero(classes.sizes[source] > NUM_HUBS)
    next_best = classes.rows[classes.starts[source[full]] + NUM_HUBS]
    np.minimum.at(beyond, np.searchsorted(targets, target[full]), next_best)
    many = np.flatnonzero(counts > MAX_NEIGHBOURS)
    beyond[many] = np.minimum(beyond[many], one[starts[many] + MAX_NEIGHBOURS])
    parts, cut = list[Edges](), [np.zeros(0, np.int64)]
    for owner, rows in _list_rows(classes, targets, np.minimum(counts, MAX_NEIGHBOURS)):
        cut.append(rows[rows > beyond[owner]])
        row, place = expand(np.minimum(counts[owner], MAX_NEIGHBOURS))
        entry = starts[owner[row]] + place
        left, right = one[entry], rows[row]
        is_better = left < right
        parts.append(Edges(left[is_better], right[is_better], near[entry[is_better]]))
    return unite_edges(parts), np.concatenate(cut)


def _list_rows(classes: Classes, targets: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of the classes `targets`, each with the number of its target; `counts` are the pairs that a row makes.

    Each time so many that about CHUNK pairs come.
    """
    owner, place = expand(classes.sizes[targets])
    rows = classes.rows[classes.starts[targets[owner]] + place]
    parts = np.cumsum(counts[owner]) // CHUNK
    edges = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(rows)]
    for start, stop in zip(edges, edges[1:], strict=False):
        yield owner[start:stop], rows[start:stop]
