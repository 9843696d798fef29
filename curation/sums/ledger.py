"""A ledger: size and sha256 of every file of one table, as `sums/TABLE-<sha256[:16]>.parquet` holds them.

A ledger is named by its content and root.json names the ledgers with their sha256, so one write of root.json makes a
new ledger count. Train shards are entries too. Raw shards need none: their names hold their sha256.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

SUMS = "sums"
_WITHOUT = frozenset({"logs", "raw", SUMS, "root.json", ".scratch"})
"""Folders and files at the top of a root that no ledger describes: logs decide nothing, raw shards name their sums."""
_SCHEMA = pa.schema([("file", pa.string()), ("size", pa.int64()), ("sha256", pa.string())])


class Sum(NamedTuple):
    """Bytes of a file and their sha256 (hex). `sha256` is None while a stage makes the file anew."""

    size: int
    sha256: str | None


Ledger = Mapping[str, Sum]
"""Path relative to ROOT → what the file holds."""


class Recorder(Protocol):
    """Told by a `Root` what it publishes."""

    def begin(self, rel: str, found: Sum) -> None:
        """`rel` is about to hold `found`."""

    def end(self, rel: str, found: Sum) -> None:
        """`rel` holds `found`."""

    def discard(self, rel: str) -> None:
        """The file or folder `rel` is about to be deleted."""


def sum_bytes(data: bytes) -> Sum:
    """What a file that holds `data` has in a ledger."""
    return Sum(len(data), hashlib.sha256(data).hexdigest())


def is_sound(data: bytes, expected: Sum | None) -> bool:
    """Whether `data` is what a ledger says, or no ledger says what it has to be."""
    return expected is None or expected.sha256 is None or sum_bytes(data) == expected


def table_of(rel: str) -> str | None:
    """The table whose ledger has the file `rel` (relative to ROOT); None for a file that no ledger describes."""
    table, _, rest = rel.partition("/")
    is_elsewhere = rel.startswith("/") or "://" in rel
    if is_elsewhere or not rest or table in _WITHOUT or table.startswith(".") or "/work/" in rel:
        return None
    return table


def ledger_file(table: str, sha256: str) -> str:
    """Where the ledger of `table` lies whose bytes have that `sha256`."""
    return f"{SUMS}/{table}-{sha256[:16]}.parquet"


def ledger_bytes(ledger: Ledger) -> bytes:
    """The file of `ledger`, sorted by path: the same ledger gives the same bytes."""
    ordered = sorted(ledger.items())
    columns = [[rel for rel, _ in ordered], [s.size for _, s in ordered], [s.sha256 for _, s in ordered]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=_SCHEMA), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def load_ledger(sha256: str, read: Callable[[], bytes]) -> Ledger:
    """The ledger whose bytes have `sha256`; `read` gives them when this process has not read it lately.

    Raises ValueError when they have another sha256.
    """
    known = _recent.get(sha256)
    if known is not None:
        return known
    data = read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("its sha256 is not the one that root.json names")
    columns = pq.ParquetFile(pa.BufferReader(data)).read().to_pydict()
    ledger = dict(zip(columns["file"], map(Sum, columns["size"], columns["sha256"]), strict=True))
    while len(_recent) >= NUM_RECENT:
        _recent.pop(next(iter(_recent)), None)
    _recent[sha256] = ledger
    return ledger


NUM_RECENT = 32
_recent: dict[str, Ledger] = {}
"""Ledgers that this process read lately, by their sha256: tasks of one worker share them."""
