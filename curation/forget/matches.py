"""Which rows of a root are asked for, and what is known of each: everything that has to go with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.download.tombstones import UID
from curation.forget.requests import Requests
from curation.progress import track
from curation.schema import count_captions, name_captions
from curation.storage import Root
from curation.tables import DUPLICATES, downloads_file, samples_file

NUM_READERS = 16
SUMS = ("sha256", "pixel_sha256", "stored_sha256")
_OF_SAMPLES = ("uid", "url", "source", "source_id", "domain", "claimed_sha256")
_OF_DOWNLOADS = ("uid", *SUMS, "shard", "offset", "size")
Mask = Callable[[pa.Table], np.ndarray]
"""Which rows of a unit are meant: bool `[n]`."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """One forgotten row: its unit, its columns of samples and downloads, and all its captions."""

    unit: str
    columns: dict[str, Any]
    captions: tuple[str, ...]

    @property
    def uid(self) -> str:
        return str(self.columns["uid"])

    @property
    def sums(self) -> set[str]:
        """sha256 of its picture as fetched, as stored, and of its pixels."""
        return {self.columns[name] for name in SUMS if self.columns.get(name)}


def find_matches(root: Root, requests: Requests, with_copies: bool) -> list[Match]:
    """The rows that `requests` name; `with_copies` also those that show the same picture.

    Those have the same bytes or pixels, or are a duplicate of a named row, or a named row of them.
    """
    matches = list(_read_matches(root, lambda rows: _match(rows, requests), "find rows"))
    if not with_copies or not matches:
        return matches
    uids, sums = {match.uid for match in matches}, set[str]().union(*(match.sums for match in matches))
    linked = pa.array(sorted(uids | find_linked(root, uids)), pa.string())
    return list(_read_matches(root, lambda rows: _match_copies(rows, linked, pa.array(sorted(sums))), "find copies"))


def find_linked(root: Root, uids: set[str]) -> set[str]:
    """The uids that the current duplicates name together with one of `uids`."""
    return {one for pair in read_pairs(root, uids) for one in pair}


def read_pairs(root: Root, uids: Iterable[str]) -> list[tuple[str, str]]:
    """Removed uid and kept uid of each row of the current duplicates that names one of `uids`."""
    wanted, pairs = pa.array(sorted(uids), pa.string()), list[tuple[str, str]]()
    for file in (root.current(DUPLICATES) or {"files": []})["files"]:
        rows = root.read_parquet(file, ["uid", "kept_uid"])
        named = pc.or_(pc.is_in(rows["uid"], wanted), pc.is_in(rows["kept_uid"], wanted))
        pairs += [(row["uid"], row["kept_uid"]) for row in rows.filter(named).to_pylist()]
    return pairs


def _match(rows: pa.Table, requests: Requests) -> np.ndarray:
    """By uid and sha256 with Arrow; URLs are parsed only where one, or a host, is asked for."""
    wanted = {kind: [key for key in requests.labels if key.startswith(f"{kind} ")] for kind in (UID, "sha256")}
    named = _is_in(rows, UID, [key.removeprefix("uid ") for key in wanted[UID]])
    sums = [key.removeprefix("sha256 ") for key in wanted["sha256"]]
    for name in ("claimed_sha256", *SUMS) if sums else ():
        named |= _is_in(rows, name, sums)
    if not requests.kinds <= {UID, "sha256"}:
        columns = (rows[name].to_pylist() for name in ("uid", "url"))
        named |= np.array([bool(requests.find_keys(uid, url)) for uid, url in zip(*columns, strict=True)], bool)
    return named


def _is_in(rows: pa.Table, name: str, values: list[str]) -> np.ndarray:
    found = pc.is_in(pc.utf8_lower(rows[name]), pa.array(values, pa.string()))
    return np.array(found.to_numpy(zero_copy_only=False), bool) if len(rows) else np.zeros(0, bool)


def _match_copies(rows: pa.Table, uids: pa.Array, sums: pa.Array) -> np.ndarray:
    named = _is_in(rows, UID, uids.to_pylist())
    for name in SUMS:
        named |= _is_in(rows, name, sums.to_pylist())
    return named


def _read_matches(root: Root, mask: Mask, desc: str) -> Iterator[Match]:
    units = root.units("samples")
    with ThreadPoolExecutor(NUM_READERS) as pool:
        for found in track(pool.map(lambda unit: _match_unit(root, unit, mask), units), len(units), desc, "unit"):
            yield from found


def _match_unit(root: Root, unit: str, mask: Mask) -> list[Match]:
    rows, texts = read_unit(root, unit)
    matches = []
    for number in np.flatnonzero(mask(rows)).tolist():
        columns = {name: rows[name][number].as_py() for name in rows.column_names}
        captions = tuple(text for name in texts.column_names if (text := texts[name][number].as_py()))
        matches.append(Match(unit=unit, columns=columns, captions=captions))
    return matches


def read_unit(root: Root, unit: str) -> tuple[pa.Table, pa.Table]:
    """Samples of `unit` with where their pictures lie, null where there are none yet; and all their captions."""
    samples = root.read_parquet(samples_file(unit))
    rows = samples.select(_OF_SAMPLES)
    texts = samples.select(name_captions(count_captions(samples.column_names)))
    if not root.exists(downloads_file(unit)):
        for name in _OF_DOWNLOADS[1:]:
            rows = rows.append_column(
                name, pa.nulls(len(rows), pa.int64() if name in ("offset", "size") else pa.string())
            )
        return rows, texts
    downloads = root.read_parquet(downloads_file(unit), _OF_DOWNLOADS)
    places = pc.index_in(rows["uid"], downloads["uid"].combine_chunks())
    for name in _OF_DOWNLOADS[1:]:
        rows = rows.append_column(name, downloads[name].combine_chunks().take(places))
    return rows, texts


def find_answered(requests: Requests, matches: Iterable[Match]) -> set[str]:
    """The keys of `requests` that some row answers to."""
    found = set[str]()
    for match in matches:
        c = match.columns
        found.update(requests.find_keys(match.uid, c["url"], c["claimed_sha256"], *match.sums))
    return found


def list_requested_uids(requests: Requests) -> list[str]:
    """Uids that are asked for by themselves: rejects name no more than that."""
    return [key.removeprefix("uid ") for key in requests.labels if key.startswith("uid ")]
