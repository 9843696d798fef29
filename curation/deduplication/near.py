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
from curation.sorting import Column, count_bits, number_type, sort_rows
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
    keys = [Column(left, bits), Column(right, bits), Column(distance, _DISTANCE_BITS)]
    order = sort_rows(keys, len(left)).order
    left, right, distance = left[order], right[order], distance[order]
    is_first = np.ones(len(left), bool)
    is_first[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return Edges(left[is_first], right[is_first], distance[is_first])


@dataclass(frozen=True)
class HashedRows:
    """Rows (uint32 or int64) with hashes (uint64) and the numbers of texts (uint64), sorted by hash, text and row."""

    hashes: np.ndarray
    texts: np.ndarray | None
    rows: np.ndarray


def sort_hashes(hashes: np.ndarray, texts: np.ndarray | None, rows: np.ndarray) -> HashedRows:
    """`rows` (uint32 or int64 `[n]`) with `hashes` (uint64) and, where they count, `texts` (int64), sorted."""
    keys = [Column(hashes)]
    if texts is not None:
        texts = texts.view(np.uint64)
        keys.append(Column(texts))
    keys.append(Column(rows, count_bits(int(rows.max(initial=0)))))
    order = sort_rows(keys, len(rows)).order
    return HashedRows(hashes[order], None if texts is None else texts[order], rows[order])


@dataclass(frozen=True)
class Classes:
    """The classes of rows: those of class i are `rows[starts[i] : starts[i + 1]]`, the best one first.

    `hashes` and `texts` are uint64 `[c]`, sorted, `starts` `[c + 1]` and `rows` `[n]` uint32, or int64 for more rows.
    """

    hashes: np.ndarray
    texts: np.ndarray | None
    starts: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, sorted_rows: HashedRows) -> Classes:
        """The classes of rows as `sort_hashes` gives them."""
        hashes, texts = sorted_rows.hashes, sorted_rows.texts
        is_first = np.ones(len(hashes), bool)
        np.not_equal(hashes[1:], hashes[:-1], out=is_first[1:])
        if texts is not None:
            is_first[1:] |= texts[1:] != texts[:-1]
        starts = np.arange(len(hashes) + 1, dtype=number_type(len(hashes)))[np.append(is_first, True)]
        return cls(hashes[is_first], None if texts is None else texts[is_first], starts, sorted_rows.rows)

    def __len__(self) -> int:
        return len(self.hashes)

    def choose(self, mask: np.ndarray) -> Classes:
        """The classes of those of `rows` for which `mask`, bool `[n]`, holds."""
        if not len(self):
            return self
        sizes = np.add.reduceat(mask, self.starts[:-1], dtype=self.starts.dtype)
        chosen = sizes > 0
        starts = np.append(np.zeros(1, sizes.dtype), np.cumsum(sizes[chosen], dtype=sizes.dtype))
        return Classes(self.hashes[chosen], None if self.texts is None else self.texts[chosen], starts, self.rows[mask])

    def measure(self, classes: np.ndarray) -> np.ndarray:
        """How many rows each of `classes` has, int64."""
        return np.asarray(self.starts[classes + 1].astype(np.int64) - self.starts[classes])

    def list_hashes(self) -> np.ndarray:
        """The different hashes, rising."""
        return self.hashes if self.texts is None else hamming.sort_different(self.hashes)

    def list_rows(self, hashes: np.ndarray) -> np.ndarray:
        """The rows that have one of `hashes`, which are different, int64."""
        classes = self._list_classes(hashes)
        owner, place = expand(self.measure(classes))
        return np.asarray(self.rows[self.starts[classes[owner]] + place].astype(np.int64))

    def _list_classes(self, hashes: np.ndarray) -> np.ndarray:
        """The classes that have one of `hashes`, which are different, int64; rising if these rise."""
        first = np.searchsorted(self.hashes, hashes)
        owner, place = expand(np.searchsorted(self.hashes, hashes, side="right") - first)
        return np.asarray(first[owner] + place)

    def rank(self) -> hamming.Classes:
        """What hashes that crowd are compared by."""
        same = np.broadcast_to(np.int64(0), len(self))  # takes no memory
        return hamming.Classes(
            self.hashes, same if self.texts is None else self.texts.view(np.int64), self.rows[self.starts[:-1]]
        )

    def link(self, a: np.ndarray, b: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs of classes of one text whose hashes are a pair (a, b), both ways, and of each class with itself
        that has several rows: numbers of the classes whose rows are better, of those whose are worse, the distance.
        """
        one, other, distance = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([distance, distance])
        source = np.searchsorted(self.hashes, one)
        if self.texts is None:
            target = np.searchsorted(self.hashes, other)
        else:
            pair, place = expand(np.searchsorted(self.hashes, one, side="right") - source)
            source, distance = source[pair] + place, distance[pair]
            target = self._find(other[pair], self.texts, source)
            source, target, distance = source[target >= 0], target[target >= 0], distance[target >= 0]
        several = np.flatnonzero(self.starts[1:] - self.starts[:-1] > 1)
        none = np.zeros(len(several), np.uint8)
        return np.r_[source, several], np.r_[target, several], np.r_[distance, none]

    def _find(self, hashes: np.ndarray, texts: np.ndarray, like: np.ndarray) -> np.ndarray:
        """The class of each of `hashes` that has the text of the class `like`, -1 for none; `texts` are of all classes.

        Memory grows with the hashes that are asked for, not with the classes.
        """
        asked = hamming.sort_different(hashes)
        classes = self._list_classes(asked)
        values, numbers = np.unique(np.concatenate([texts[classes], texts[like]]), return_inverse=True)
        own = np.searchsorted(asked, self.hashes[classes]) * len(values) + numbers[: len(classes)]
        wanted = np.searchsorted(asked, hashes) * len(values) + numbers[len(classes) :]
        found = np.minimum(np.searchsorted(own, wanted), len(own) - 1)
        return np.where(own[found] == wanted, classes[found], -1)


def expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For `counts` things each: the number of the count, and that of the thing in it."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


class PerceptualSearch:
    """Search of `rows` for hashes at most `max_hamming` bits apart, by `num_threads` threads."""

    def __init__(self, rows: HashedRows, max_hamming: int, num_threads: int) -> None:
        self._classes, self._max_hamming, self._num_threads = Classes.of(rows), max_hamming, num_threads

    def search(self, removed: np.ndarray | None = None, cut: np.ndarray | None = None) -> tuple[Edges, np.ndarray]:
        """Edges, and the rows that were cut short, int64 rising.

        Compares all rows; or those that are not `removed`, when a row of `cut` is among those of a comparison. Both
        are bool, by row.
        """
        classes = self._classes
        about = None if cut is None else classes.choose(cut[classes.rows]).list_hashes()
        if removed is not None:
            classes = classes.choose(~removed[classes.rows])
        a, b, distance = self._find_near_hashes(classes, about)
        crowded, apart = np.unique(a[a == b]), a != b
        edges, beyond = _link_rows(classes, *classes.link(a[apart], b[apart], distance[apart]))
        return edges, np.unique(np.r_[beyond, classes.list_rows(crowded)])

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
    sizes = classes.measure(source)
    link, place = expand(np.minimum(sizes, NUM_HUBS))
    one = classes.rows[classes.starts[source[link]] + place].astype(np.int64)
    of, near = target[link], distance[link]
    keys = [Column(values, count_bits(int(values.max(initial=0)))) for values in (of, one)]
    order = sort_rows([*keys, Column(near, _DISTANCE_BITS)], len(one)).order
    one, near, of = one[order], near[order], of[order]
    targets, starts, counts = np.unique(of, return_index=True, return_counts=True)
    beyond = np.full(len(targets), _NONE)
    full = np.flatnonzero(sizes > NUM_HUBS)
    next_best = classes.rows[classes.starts[source[full]].astype(np.int64) + NUM_HUBS]
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
    owner, place = expand(classes.measure(targets))
    rows = classes.rows[classes.starts[targets[owner]] + place].astype(np.int64)
    parts = np.cumsum(counts[owner]) // CHUNK
    edges = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(rows)]
    for start, stop in zip(edges, edges[1:], strict=False):
        yield owner[start:stop], rows[start:stop]
