"""The duplicates that metadata alone tell, found on this machine: numbers of 64 bits, sorted and compared in memory.

Each row that came takes some 35 bytes of memory at a time, and 8 more where its text counts; what is read of the tables
lies in a private folder on the disk of the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.deduplication.near import PerceptualSearch, sort_hashes
from curation.deduplication.order import fold_exact_copies, order_rows, split_terms
from curation.deduplication.rounds import Decided, find_removing_edges
from curation.deduplication.scan import Columns, Wanted, scan_unit
from curation.download.withdrawn import Lists
from curation.duplicates.hamming import BITS
from curation.duplicates.keep import Term, parse_keep
from curation.hexadecimal import write_texts
from curation.progress import track
from curation.recipe.config import DedupeConfig
from curation.recipe.select_config import SelectConfig
from curation.schema import DUPLICATES
from curation.scratch import open_folder
from curation.selection.rows import read_ahead
from curation.selection.streams import count_threads
from curation.sorting import Column, list_pieces, sort_rows
from curation.storage import Root
from curation.tables import duplicates_file

PREFIXES = 1 << 24
"""Values of the first six digits of a uid."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The version that is written."""

    root: Root
    fp: str
    rows_per_file: int


@dataclass(frozen=True, kw_only=True)
class Removed:
    """Rows that are removed, int64 `[n]`, and what the table says of each."""

    rows: np.ndarray
    kept: np.ndarray
    components: np.ndarray
    distances: np.ndarray
    """Bits of the edge, uint8."""
    is_near: np.ndarray
    """Whether the edge is of the perceptual tier, bool; else it is an exact copy."""


def dedupe_units(
    target: Target, units: Sequence[str], config: DedupeConfig, lists: Lists, limits: SelectConfig
) -> tuple[list[str], dict[str, Any]]:
    """Publish the files of a version, and give their paths and the statistics. Its tiers need no vectors.

    Raises UserError for tables that are damaged, before anything is published.
    """
    with open_folder(target.root, "dedupe") as folder:
        columns, num_threads = Columns(folder), count_threads(limits)
        terms, uid_descending = split_terms(parse_keep(config.keep))
        wanted = Wanted(
            terms=terms,
            lists=lists,
            min_entropy=config.min_entropy,
            exact="exact" in config.tiers,
            perceptual="perceptual" in config.tiers,
            same_caption=config.same_caption,
        )
        _scan(target.root, wanted, units, columns, num_threads)
        _number_rows(columns, terms, uid_descending)
        none = np.zeros(0, np.int64)
        copies, best = fold_exact_copies(columns) if wanted.exact else (none, none)
        search = None
        if wanted.perceptual:
            search = _prepare_search(columns, copies, config.max_hamming, num_threads).search
        decided = find_removing_edges(search, columns.num_rows)
        del search
        removed = _list_removed(decided, copies, best)
        files, tiers = _write_removed(target, columns, removed)
    statistics = {
        "pictures": columns.num_rows,
        "different": columns.num_rows - len(copies),
        "without_vector": columns.num_rows,
        "zero_or_nan_vector": 0,
        "too_plain_for_phash": columns.num_too_plain,
        "removed": tiers,
        "against": {},
        "rounds": decided.rounds,
    }
    return files, statistics


def _scan(root: Root, wanted: Wanted, units: Sequence[str], columns: Columns, num_threads: int) -> None:
    found = read_ahead(partial(scan_unit, root, wanted), units, num_threads)
    for part in track(found, len(units), "dedupe, read", "unit"):
        columns.append(part, wanted.terms)


def _number_rows(columns: Columns, terms: Sequence[Term], uid_descending: bool) -> None:
    """Write the columns `row`, the row of each place, and `place`, the place of each row."""
    places = order_rows(columns, terms, uid_descending)
    columns.write("place", places)
    rows = np.empty_like(places)
    rows[places] = np.arange(len(places), dtype=places.dtype)
    columns.write("row", rows)


def _prepare_search(columns: Columns, copies: np.ndarray, max_hamming: int, num_threads: int) -> PerceptualSearch:
    """The search among best rows whose hashes say something."""
    return PerceptualSearch(sort_hashes(*_read_hashes(columns, copies)), max_hamming, num_threads)


def _read_hashes(columns: Columns, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Hashes, texts if these count, and rows that are compared: best ones whose hashes say something."""
    is_copy = np.zeros(columns.num_rows, bool)
    is_copy[copies] = True
    chosen = columns.read("has_phash")
    for piece in list_pieces(len(chosen)):
        chosen[piece] &= ~is_copy[columns.map("row")[piece]]
    texts = columns.map("text")[chosen] if columns.has("text") else None
    return columns.map("phash")[chosen], texts, columns.map("row")[chosen]


def _list_removed(decided: Decided, copies: np.ndarray, best: np.ndarray) -> Removed:
    """The rows that an edge removes, and the copies of best rows, which share what became of these."""
    removing = decided.removing
    edge = _look_up(removing.right, best)
    is_near, known = edge >= 0, _look_up(decided.rows, best)
    kept, components, distances = best.copy(), best.copy(), np.zeros(len(best), np.uint8)
    kept[is_near] = removing.left[edge[is_near]]
    distances[is_near] = removing.distance[edge[is_near]]
    components[known >= 0] = decided.components[known[known >= 0]]
    return Removed(
        rows=np.r_[removing.right, copies],
        kept=np.r_[removing.left, kept],
        components=np.r_[decided.components[_look_up(decided.rows, removing.right)], components],
        distances=np.r_[removing.distance, distances],
        is_near=np.r_[np.ones(len(removing), bool), is_near],
    )


def _look_up(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each of `wanted` in `rows`, which rise; -1 for none."""
    if not len(rows):
        return np.full(len(wanted), -1)
    found = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    return np.where(rows[found] == wanted, found, -1)


def _write_removed(target: Target, columns: Columns, removed: Removed) -> tuple[list[str], dict[str, int]]:
    """Publish the table in files that cover equal ranges of uids, sorted by uid; their paths, and rows by tier."""
    uids, places = columns.map("uid"), columns.map("place")
    own = uids[places[removed.rows]]
    keys = (Column(np.ascontiguousarray(own[:, half])) for half in (0, 1))
    order = sort_rows(keys, len(own)).order
    num_files = -(-len(order) // target.rows_per_file)
    buckets = (own[order, 0] >> np.uint64(40)) * np.uint64(num_files) // np.uint64(PREFIXES)
    numbers, starts = np.unique(buckets, return_index=True)
    files = list[str]()
    for number, start, stop in zip(numbers.tolist(), starts, [*starts[1:], len(order)], strict=False):
        chosen = order[start:stop]
        named = [removed.rows[chosen], removed.kept[chosen], removed.components[chosen]]
        uid, kept, component = (write_texts(uids[places[rows]]) for rows in named)
        tiers = pc.if_else(pa.array(removed.is_near[chosen]), "perceptual", "exact")
        similarity = pa.array((1 - removed.distances[chosen] / BITS).astype(np.float32))
        files.append(duplicates_file(target.fp, number))
        target.root.publish_parquet(files[-1], pa.table([uid, kept, tiers, similarity, component], schema=DUPLICATES))
    num_near = int(removed.is_near.sum())
    counts = {"exact": len(order) - num_near, "perceptual": num_near}
    return files, {tier: count for tier, count in counts.items() if count}
