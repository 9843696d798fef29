"""Which root's row of each uid a merged root has, and why the others are left out.

Of rows with one uid, the first of these is taken; of equal ones, that of the root named earlier:

1. one that the site or an opt-out list refused: what was refused anywhere is not taken from elsewhere;
2. one whose picture came;
3. one that ended without a picture;
4. one that nobody has tried yet.

When a tombstone of any of the roots names one of them, none is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.adopt.planning import split_uids
from curation.download.tombstones import SHA256, Tombstones, read_tombstones
from curation.progress import track
from curation.schema import Status
from curation.storage import Root
from curation.tables import NUM_READERS, downloads_file, samples_file

REFUSALS = (Status.OPTED_OUT.value, Status.ROBOTS.value)
"""How rows end that a site or a list refuses."""
_SUMS = ("sha256", "pixel_sha256", "stored_sha256")


class Fate(IntEnum):
    """What becomes of a row. All but TAKEN say why it is left out."""

    TAKEN = 0
    FORGOTTEN = 1
    """A tombstone of one of the roots names it, or a row with its uid."""
    REFUSED = 2
    """Another root has the row as one that the site or an opt-out list refused."""
    HAS_PICTURE = 3
    """Another root has the row with its picture."""
    WAS_TRIED = 4
    """Another root has tried the row, this one not yet."""
    NAMED_EARLIER = 5
    """A root that was named earlier has the row as far as this one."""


class Rank(IntEnum):
    """The state of one root's row; of one uid the lowest counts."""

    FORGOTTEN = 0
    REFUSED = 1
    CAME = 2
    ENDED = 3
    WAITING = 4


_WON_BY = np.array([Fate.FORGOTTEN, Fate.REFUSED, Fate.HAS_PICTURE, Fate.WAS_TRIED, Fate.NAMED_EARLIER], np.uint8)
"""By the rank of the row that is taken: why a row of another rank is not."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One unit of one of the roots, and what it is called in the new root."""

    root: Root
    unit: str
    name: str


class Keys(NamedTuple):
    """The rows of one unit, in the order of its samples: uids as uint64 `[n, 2]`, ranks as uint8 `[n]`."""

    uids: np.ndarray
    ranks: np.ndarray


def unite_tombstones(roots: Iterable[Root]) -> Tombstones:
    """The tombstones of all `roots`; of one that several have, the earliest. Raises UserError for damaged ones."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for kind, sha256, reason, date in (row for root in roots for row in read_tombstones(root).rows):
        since = date, reason
        found[kind, sha256] = min(found.get((kind, sha256), since), since)
    return Tombstones(tuple(sorted((*key, reason, date) for key, (date, reason) in found.items())))


def find_refused_urls(sources: Sequence[Source]) -> pa.Array:
    """The URLs of every row that a site or a list refused."""
    with ThreadPoolExecutor(NUM_READERS) as pool:
        found = track(pool.map(_read_refused_urls, sources), len(sources), "merge, refusals", "unit")
        urls = sorted({url for listed in found for url in listed})
    return pa.array(urls, pa.string())


def _read_refused_urls(source: Source) -> list[str]:
    rel = downloads_file(source.unit)
    if not source.root.exists(rel):
        return []
    rows = source.root.read_parquet(rel, ["uid", "status"])
    uids = rows.filter(pc.is_in(rows["status"], pa.array(REFUSALS)))["uid"].combine_chunks()
    if not len(uids):
        return []
    samples = source.root.read_parquet(samples_file(source.unit), ["uid", "url"])
    return [url for url in samples.filter(pc.is_in(samples["uid"], uids))["url"].to_pylist() if url]


def decide_fates(sources: Sequence[Source], tombstones: Tombstones) -> list[np.ndarray]:
    """The `Fate` of each row of each source (uint8 `[n]`), in the order of its samples. Takes 50 bytes a row."""
    with ThreadPoolExecutor(NUM_READERS) as pool:
        found = pool.map(lambda source: _read_keys(source, tombstones), sources)
        keys = list(track(found, len(sources), "merge, rows", "unit"))
    return choose_rows(keys)


def choose_rows(keys: Sequence[Keys]) -> list[np.ndarray]:
    """The `Fate` of each row of `keys`, which are in the order in which their roots are named."""
    if not keys:
        return []
    uids, ranks = (np.concatenate(column) for column in zip(*keys, strict=True))
    order = np.lexsort((ranks, uids[:, 1], uids[:, 0]))  # stable, so of equal rows the earlier root's comes first
    ordered, own = uids[order], ranks[order]
    first = np.ones(len(order), bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    best = own[first][np.cumsum(first) - 1]
    lost = np.where(own == best, Fate.NAMED_EARLIER, _WON_BY[best])
    fates = np.empty(len(order), np.uint8)
    fates[order] = np.where(best == Rank.FORGOTTEN, Fate.FORGOTTEN, np.where(first, Fate.TAKEN, lost))
    return np.split(fates, np.cumsum([len(one.ranks) for one in keys])[:-1])


def _read_keys(source: Source, tombstones: Tombstones) -> Keys:
    rows = source.root.read_parquet(samples_file(source.unit), ["uid", "url", "claimed_sha256"])
    return Keys(split_uids(rows["uid"]), np.fromiter(_rank_rows(source, rows, tombstones), np.uint8, len(rows)))


def _rank_rows(source: Source, rows: pa.Table, tombstones: Tombstones) -> Iterator[int]:
    downloads = _read_downloads(source, [*_SUMS] if SHA256 in tombstones.kinds else [])
    for uid, url, claimed in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True):
        status, *sums = downloads.get(uid, (None,))
        if tombstones.rows and (tombstones.name_row(uid, url, claimed) or tombstones.name_picture(*sums)):
            yield Rank.FORGOTTEN
        elif status is None:
            yield Rank.WAITING
        elif status in REFUSALS:
            yield Rank.REFUSED
        else:
            yield Rank.CAME if status == Status.OK else Rank.ENDED


def _read_downloads(source: Source, sums: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Status and `sums` of each row by its uid; nothing where the unit was not downloaded."""
    rel = downloads_file(source.unit)
    if not source.root.exists(rel):
        return {}
    rows = source.root.read_parquet(rel, ["uid", "status", *sums])
    uids, *values = (rows[name].to_pylist() for name in rows.column_names)
    return dict(zip(uids, zip(*values, strict=True), strict=True))
