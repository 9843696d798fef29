"""How many altered copies of photographs each tier finds, at which precision, and where τ was put.

A pair is right when both pictures show the same photograph, or two photographs that a person called the same
(benchmarks/natural_pairs.tsv). τ and each hash's threshold are chosen on the calibration photographs; the tables are
about others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.altered import ALTERATIONS
from benchmarks.dedupe_pictures import MODEL, Entry, Pictures, load, prepare
from curation.duplicates.blocks import BLOCK, SearchSettings
from curation.duplicates.clustering import normalise
from curation.duplicates.components import RemovalSelector, label_components
from curation.duplicates.hamming import find_near_values
from curation.duplicates.phash import NUM_SET_BITS
from curation.duplicates.vectors import find_near_pairs
from curation.recipe.config import DedupeConfig
from jobs.embedders import find_embedder

__all__ = ["prepare", "tables"]
NATURAL = Path(__file__).with_name("natural_pairs.tsv")
MIN_PRECISION = 0.995
TARGETS = {"jpeg": 99, "resize": 99, "brightness": 99, "crop": 97, "border": 92, "text": 92, "grey": 92}
COSINES = [0.60, 0.65, 0.70, 0.72, 0.74, 0.75, 0.76, 0.765, 0.77, 0.78, 0.80, 0.85, 0.90]
Table = tuple[str, list[dict[str, Any]], list[str]]
Edges = np.ndarray
"""int64 `[pairs, 2]`: positions of pictures, left < right, sorted, unique."""


def tables(photographs: Path, folder: Path) -> Iterator[Table]:
    """The results that the prepared pictures give: the tiers, the choice of τ, and the hash functions."""
    pictures = load(photographs, folder)
    test, calibration = (_group(pictures.entries, groups) for groups in (("test", "background"), ("calibration",)))
    yield _tiers(pictures, test)
    yield _thresholds(pictures, calibration)
    peers = folder / "peer-hashes.npz"
    if peers.exists():
        yield _functions(pictures, calibration, test, np.load(peers))


class Truth:
    """What is right among `members`, positions of pictures, and which pairs an alteration is judged by."""

    def __init__(self, entries: list[Entry], members: np.ndarray) -> None:
        names = {name: number for number, name in enumerate(sorted({entry.photograph for entry in entries}))}
        self.photograph = np.array([names[entry.photograph] for entry in entries])
        natural = [line.split("\t")[:2] for line in NATURAL.read_text().splitlines()]
        known = [(names[a], names[b]) for a, b in natural if a in names and b in names]
        self._natural = {(min(a, b), max(a, b)) for a, b in known}
        self.pairs: dict[str, Edges] = {}
        original = {entry.photograph: i for i, entry in enumerate(entries) if entry.alteration == "original"}
        for kind in ALTERATIONS:
            copies = [i for i in members.tolist() if entries[i].alteration == kind]
            self.pairs[kind] = np.array([(original[entries[i].photograph], i) for i in copies], np.int64)

    def right(self, edges: Edges) -> np.ndarray:
        """Mask of the pairs that show the same."""
        a, b = self.photograph[edges[:, 0]], self.photograph[edges[:, 1]]
        same = np.asarray(a == b)
        for position in np.flatnonzero(~same).tolist():
            pair = int(min(a[position], b[position])), int(max(a[position], b[position]))
            same[position] = pair in self._natural
        return same

    def recall(self, edges: Edges) -> dict[str, float]:
        """Per cent of each alteration's copies that are paired with their original."""
        size = len(self.photograph)
        found = edges[:, 0] * size + edges[:, 1]
        return {
            kind: 100 * float(np.isin(pairs[:, 0] * size + pairs[:, 1], found).mean())
            for kind, pairs in self.pairs.items()
        }


def _group(entries: list[Entry], groups: tuple[str, ...]) -> np.ndarray:
    return np.array([i for i, entry in enumerate(entries) if entry.group in groups])


def _tiers(pictures: Pictures, members: np.ndarray) -> Table:
    truth, config = Truth(pictures.entries, members), DedupeConfig()
    min_cosine = find_embedder(MODEL).min_cosine
    assert min_cosine is not None
    left, right, _ = find_near_pairs(pictures.vectors[members], SearchSettings(min_cosine=min_cosine))
    found = {
        "exact": _unique([_equal(values[members], members) for values in (pictures.sha256, pictures.pixel_sha256)]),
        "perceptual": find_near_hashes(pictures, members, config),
        "embedding": np.stack([members[left], members[right]], axis=1),
    }
    found["together"] = _unique(list(found.values()))
    recalls = {name: truth.recall(edges) for name, edges in found.items()}
    rows: list[dict[str, Any]] = [
        {"": kind, **{name: recalls[name][kind] for name in found}, "target": TARGETS.get(kind)} for kind in ALTERATIONS
    ]
    masks = {name: truth.right(edges) for name, edges in found.items()}
    precision = {name: 100 * float(mask.mean()) if len(mask) else None for name, mask in masks.items()}
    rows.append({"": "pair precision", **precision, "target": 100 * MIN_PRECISION})
    rows.append({"": "pairs found", **{name: len(mask) for name, mask in masks.items()}})
    rows.append({"": "wrong pairs", **{name: int((~mask).sum()) for name, mask in masks.items()}})
    removed, wrong = _removals(found["together"], truth)
    copies = sum(len(pairs) for pairs in truth.pairs.values())
    notes = [
        f"Per cent of copies that are paired with their original, of {len(truth.pairs['jpeg']):,} photographs with "
        f"{len(ALTERATIONS)} copies each, among {len(members):,} pictures; no threshold was chosen on any of them.",
        f"exact: bytes or decoded pixels; perceptual: at most {config.max_hamming} of 64 bits; embedding: {MODEL} at "
        f"cosine {min_cosine} or more.",
        f"After the keep rule and the guard {removed:,} rows are removed for {copies:,} planted copies, {wrong:,} of "
        "them for another photograph.",
    ]
    return "dedupe_photographs", rows, notes


def _removals(edges: Edges, truth: Truth) -> tuple[int, int]:
    """Rows that the guard removes, and those of them whose kept row shows something else. Originals rank first."""
    rows, names = label_components(edges[:, 0], edges[:, 1])
    component = names[np.searchsorted(rows, edges[:, 0])]
    order = np.lexsort((edges[:, 1], edges[:, 0], component))
    mask = RemovalSelector().select(component[order], edges[order, 0], edges[order, 1])
    return int(mask.sum()), int((~truth.right(edges[order][mask])).sum())


def _thresholds(pictures: Pictures, members: np.ndarray) -> Table:
    truth = Truth(pictures.entries, members)
    edges, cosine = find_similar(pictures, members, COSINES[0])
    rows = []
    for limit in COSINES:
        taken = edges[cosine >= limit]
        mask = truth.right(taken)
        row: dict[str, Any] = {"cosine": limit, "precision %": 100 * float(mask.mean()), "wrong": int((~mask).sum())}
        rows.append(row | truth.recall(taken))
    notes = [
        f"{MODEL} on the {len(truth.pairs['jpeg']):,} calibration photographs and their copies, {len(members):,} "
        "pictures, all pairs compared; per cent of copies paired with their original.",
    ]
    return "dedupe_thresholds", rows, notes


def _functions(pictures: Pictures, calibration: np.ndarray, test: np.ndarray, peers: Any) -> Table:
    functions = {"ours (COYO's pHash)": pictures.phash[:, None]} | {name: peers[name] for name in peers.files}
    known = {name: np.ones(len(pictures.phash), bool) for name in functions}
    known["ours (COYO's pHash)"] = _telling(pictures, DedupeConfig())
    rows = []
    for name, words in functions.items():
        bits = 64 * words.shape[1]
        limit = _limit(words, known[name], calibration, Truth(pictures.entries, calibration), bits // 4)
        truth = Truth(pictures.entries, test)
        edges = _close(words, known[name], test, limit)[0] if limit >= 0 else np.zeros((0, 2), np.int64)
        mask = truth.right(edges)
        precision = 100 * float(mask.mean()) if len(mask) else None
        rows.append({"hash": name, "bits": bits, "at most": limit, "precision %": precision} | truth.recall(edges))
    notes = [
        "Each function at the largest distance whose pair precision on the calibration photographs is at least "
        f"{100 * MIN_PRECISION} %; precision and recall are those of the test photographs.",
        "imagededup 0.3.3.post2 and pdqhash 0.2.8 from PyPI, computed by benchmarks/peer_hashes.py in a virtualenv of "
        "their own on the files as fetched.",
    ]
    return "dedupe_hash_functions", rows, notes


def _limit(words: np.ndarray, known: np.ndarray, members: np.ndarray, truth: Truth, highest: int) -> int:
    """The largest distance up to which the pairs among `members` are precise enough, -1 for none."""
    edges, distance = _close(words, known, members, highest)
    mask = truth.right(edges)
    limits = [limit for limit in range(highest + 1) if (distance <= limit).any()]
    precise = [limit for limit in limits if mask[distance <= limit].mean() >= MIN_PRECISION]
    return max(precise, default=-1)


def _telling(pictures: Pictures, config: DedupeConfig) -> np.ndarray:
    """Mask of the pictures whose hash the perceptual tier compares."""
    return np.asarray((np.bitwise_count(pictures.phash) == NUM_SET_BITS) & (pictures.entropy >= config.min_entropy))


def find_near_hashes(pictures: Pictures, members: np.ndarray, config: DedupeConfig) -> Edges:
    """Pairs of `members` that the perceptual tier links."""
    members = members[_telling(pictures, config)[members]]
    smaller, larger, _ = find_near_values(pictures.phash[members], config.max_hamming)
    near = np.unique(np.concatenate([smaller, larger]))
    close, _ = _close(pictures.phash[:, None], np.isin(pictures.phash, near), members, config.max_hamming)
    return _unique([close, _equal(pictures.phash[members], members)])


def _close(words: np.ndarray, known: np.ndarray, members: np.ndarray, limit: int) -> tuple[Edges, np.ndarray]:
    """Pairs of `members` at most `limit` bits apart, all compared, and their distances; `words` uint64 `[n, words]`."""
    members = members[known[members]]
    edges, distances = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(members), BLOCK):
        own = members[start : start + BLOCK]
        distance = np.bitwise_count(words[own, None] ^ words[None, members]).sum(axis=2, dtype=np.int16)
        a, b = np.nonzero((distance <= limit) & (own[:, None] < members[None, :]))
        edges.append(np.stack([own[a], members[b]], axis=1))
        distances.append(distance[a, b].astype(np.int64))
    return np.concatenate(edges), np.concatenate(distances)


def _cosines(vectors: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of rows at least `limit` alike, all compared."""
    known, found = normalise(vectors), []
    for start in range(0, len(known), BLOCK):
        cosine = np.triu(known[start : start + BLOCK] @ known.T, k=start + 1)
        a, b = np.nonzero(cosine >= limit)
        found.append((a + start, b, cosine[a, b]))
    left, right, cosine = (np.concatenate(column) for column in zip(*found, strict=True))
    return left, right, cosine


def find_similar(pictures: Pictures, members: np.ndarray, limit: float) -> tuple[Edges, np.ndarray]:
    """Pairs of `members` whose cosine is at least `limit`, all compared, and their cosines."""
    left, right, cosine = _cosines(pictures.vectors[members], limit)
    return np.stack([members[left], members[right]], axis=1), cosine


def _equal(values: np.ndarray, members: np.ndarray) -> Edges:
    """All pairs of `members` with equal `values`."""
    order = np.argsort(values, kind="stable")
    bounds = [0, *(np.flatnonzero(values[order][1:] != values[order][:-1]) + 1).tolist(), len(order)]
    groups = [members[order[start:stop]] for start, stop in zip(bounds, bounds[1:], strict=False) if stop > start + 1]
    pairs = [np.stack(np.triu_indices(len(group), 1), axis=1) for group in groups]
    return np.concatenate([np.zeros((0, 2), np.int64), *(g[p] for g, p in zip(groups, pairs, strict=True))])


def _unique(edges: list[Edges]) -> Edges:
    return np.unique(np.sort(np.concatenate(edges), axis=1), axis=0)
