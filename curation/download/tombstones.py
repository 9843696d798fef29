"""Tombstones: what a root was asked to forget, kept as hashes, so that no later ingest, adoption or download brings it
back.

A tombstone is the sha256 of a key. A uid, a URL in all its spellings, a host and a picture have keys; those of URLs,
hosts and pictures are the keys of opt-out lists. Nobody reads a key back from its hash, but whoever knows a URL can ask
whether it was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from curation.download.opt_out import digest_key, list_target_keys, sha256_key
from curation.errors import UserError
from curation.fetch.urls import BadUrlError, parse_url
from curation.remedies import remedy
from curation.schema import REJECTS, TOMBSTONES, RejectReason
from curation.storage import Root
from curation.tables import TOMBSTONES as TOMBSTONES_FILE

UID, URL, HOST, SHA256, TEXT = "uid", "url", "host", "sha256", "text"
"""Kinds of keys, which are their first words. TEXT is of a URL that is none of the web, such as that of a file."""


def uid_key(uid: str) -> str:
    """The key of one image-text pair."""
    return f"{UID} {uid}"


def list_url_keys(url: str | None) -> list[str]:
    """Every key under which a request can name a row with this URL: the URL itself first, then its hosts."""
    try:
        return list_target_keys(parse_url(url or ""))
    except BadUrlError:
        return [f"{TEXT} {url}"] if url else []


@dataclass(frozen=True)
class Tombstones:
    """The table of tombstones of a root."""

    rows: tuple[tuple[str, str, str, str], ...] = ()
    """Kind, sha256 (hex) of the key, reason and date of each, sorted."""

    @cached_property
    def digests(self) -> frozenset[bytes]:
        """The sha256 of every key."""
        return frozenset(bytes.fromhex(sha256) for _, sha256, _, _ in self.rows)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Kinds of which there are tombstones: of the others no row needs to be asked."""
        return frozenset(kind for kind, _, _, _ in self.rows)

    def name_uid(self, uid: str | None) -> bool:
        """Whether the row with this uid was forgotten."""
        return uid is not None and UID in self.kinds and digest_key(uid_key(uid)) in self.digests

    def name_row(self, uid: str, url: str | None, sha256: str | None) -> bool:
        """Whether a row is to be forgotten, by its uid, its URL, its host or the sha256 that its source claims."""
        if self.name_uid(uid):
            return True
        keys = [] if self.kinds <= {UID, SHA256} else list_url_keys(url)
        keys += [sha256_key(sha256)] if sha256 and SHA256 in self.kinds else []
        return any(digest_key(key) in self.digests for key in keys)

    def name_picture(self, *sums: str | None) -> bool:
        """Whether one of the sha256 of a picture, as it was fetched or as it is stored, was forgotten."""
        if SHA256 not in self.kinds:
            return False
        return any(sha256 is not None and digest_key(sha256_key(sha256)) in self.digests for sha256 in sums)

    def to_table(self) -> pa.Table:
        """As the root keeps them."""
        columns = zip(*sorted(self.rows), strict=True) if self.rows else ([], [], [], [])
        return pa.table([pa.array(list(column), pa.string()) for column in columns], schema=TOMBSTONES)


def read_tombstones(root: Root) -> Tombstones:
    """The tombstones of `root`; none where nothing was forgotten. Raises UserError when they are damaged or lost."""
    if not root.exists(TOMBSTONES_FILE):
        if root.expected(TOMBSTONES_FILE) is not None:  # without them, what was forgotten would come back
            raise UserError(f"{root.url(TOMBSTONES_FILE)} is missing: {remedy(TOMBSTONES_FILE, is_there=False)}.")
        return Tombstones()
    columns = root.read_parquet(TOMBSTONES_FILE, TOMBSTONES.names).to_pydict()
    return Tombstones(tuple(sorted(zip(*(columns[name] for name in TOMBSTONES.names), strict=True))))


def find_forgotten(tombstones: Tombstones, rows: pa.Table, reasons: Sequence[str | None]) -> list[bool]:
    """Which of `rows` (uid, url, claimed_sha256) were forgotten; one that has a reason already is known by its uid."""
    if not tombstones.rows:
        return [False] * len(rows)
    nothing = [None] * len(rows)
    claimed = rows["claimed_sha256"].to_pylist() if "claimed_sha256" in rows.column_names else nothing
    columns = (rows["uid"].to_pylist(), rows["url"].to_pylist(), claimed)
    return [
        tombstones.name_row(uid, url, sha256) if reason is None else tombstones.name_uid(uid)
        for uid, url, sha256, reason in zip(*columns, reasons, strict=True)
    ]


def append_forgotten(rejects: pa.Table, sources: Iterable[str]) -> pa.Table:
    """`rejects` and, behind them, a row for each forgotten one, of which the source alone is said; in one chunk."""
    ordered = sorted(sources)
    nothing = {name: pa.nulls(len(ordered), REJECTS.field(name).type) for name in REJECTS.names}
    reasons = pa.array([RejectReason.FORGOTTEN.value] * len(ordered), pa.string())
    known = {"source": pa.array(ordered, pa.string()), "reason": reasons}
    added = pa.table({**nothing, **known}, schema=REJECTS)
    return pa.concat_tables([rejects, added]).combine_chunks() if ordered else rejects


def hide_name(name: str) -> str:
    """What stands in a listing in the place of a file whose rows were forgotten: nobody reads the name back."""
    return f"forgotten:{digest_key(name).hex()}"
