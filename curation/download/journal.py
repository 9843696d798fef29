"""Finished rows of a unit on local disk, in the order they came: flat memory, and the journal after a kill.

A record is a header (JSON of the row) and the bytes of the picture. A checksum vouches for the header, the row's own
`stored_sha256` for the picture, or the checksum for both where the row has none. Reading stops at the first record that
is not whole, which is where the kill came. Records reach the file twice a second at least: that much work a kill costs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

FLUSH_S = 0.5
FLUSH_BYTES = 256 << 10
PREFIX = struct.Struct(">IIQ")
"""crc32 of what follows, as far as the row does not vouch for it; length of the header, length of the picture."""
_json = json.JSONEncoder(check_circular=False).encode


class Spool:
    """Append-only journal of one unit: `with Spool(path).open() as spool`.

    `rows` maps uid to its row, the latest that was added; pictures stay in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._waiting: list[bytes] = []
        """Records that have not reached the file; they end at `_end`."""
        self._end = self._written = 0
        self._flushed = 0.0

    def open(self) -> Spool:
        """Lock the journal and read what a killed run has left. Raises BlockingIOError."""
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115  # closed by __exit__
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._end = self._written = self._recover()
            self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise
        return self

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._flush()
        finally:
            self._file.close()

    def _recover(self) -> int:
        """Read what a killed run has left; the end of its last whole record."""
        size = os.fstat(self._file.fileno()).st_size
        position = 0
        with open(self.path, "rb") as file:
            while position + PREFIX.size <= size:
                checksum, header_size, data_size = PREFIX.unpack(file.read(PREFIX.size))
                if position + PREFIX.size + header_size + data_size > size:
                    break
                row = _row(checksum, file.read(header_size), file.read(data_size))
                if row is None:
                    break
                self._remember(row, position + PREFIX.size + header_size, data_size)
                position += PREFIX.size + header_size + data_size
        return position

    def _remember(self, row: dict[str, Any], offset: int, size: int) -> None:
        self.rows[row["uid"]] = row
        if size:
            self._places[row["uid"]] = (offset, size)
        else:
            self._places.pop(row["uid"], None)

    def add(self, row: dict[str, Any], data: bytes = b"") -> None:
        """Append the row of one uid with its stored picture. Raises OSError when the disk is full."""
        header = _json(row).encode()
        checksum = zlib.crc32(header)
        if not row.get("stored_sha256"):
            checksum = zlib.crc32(data, checksum)
        place = self._end + PREFIX.size + len(header)
        self._waiting += (PREFIX.pack(checksum, len(header), len(data)), header, data)
        self._end = place + len(data)
        self._remember(row, place, len(data))
        if self._end - self._written >= FLUSH_BYTES or time.monotonic() - self._flushed >= FLUSH_S:
            self._flush()

    def _flush(self) -> None:
        """Write what waits, in one step: joined when added, every byte would be copied once more."""
        data = memoryview(b"".join(self._waiting))
        self._waiting.clear()
        self._written, self._flushed = self._end, time.monotonic()
        while data:
            data = data[self._file.write(data) :]

    def picture(self, uid: str) -> bytes:
        """The stored bytes of `uid`."""
        offset, size = self._places[uid]
        if offset + size > self._written:
            self._flush()
        return os.pread(self._file.fileno(), size, offset)

    def forget(self) -> None:
        """Delete the journal: its unit stands."""
        self.path.unlink(missing_ok=True)


def _row(checksum: int, header: bytes, data: bytes) -> dict[str, Any] | None:
    """The row of a record; None when the record is not what was written."""
    of_header = zlib.crc32(header)
    if checksum not in (of_header, zlib.crc32(data, of_header)):
        return None
    row: dict[str, Any] = json.loads(header)
    if data and checksum == of_header and hashlib.sha256(data).hexdigest() != row.get("stored_sha256"):
        return None
    return row
