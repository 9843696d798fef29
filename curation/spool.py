"""Finished rows of a unit on local disk, in the order they came: flat memory, and the journal after a kill.

A record is a checksummed header (JSON) and the bytes of the picture. Reading stops at the first record that is not
whole, which is where the kill came. Records reach the file twice a second at least: that much work a kill may cost.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

FLUSH_S = 0.5
FLUSH_BYTES = 1 << 20
PREFIX = struct.Struct(">IIQ")
"""crc32 of what follows, length of the header, length of the picture."""


class Spool:
    """Append-only journal of one unit: `with Spool(path).open() as spool`.

    `rows` maps uid to its row; pictures stay in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._flushed = 0.0

    def open(self) -> Spool:
        """Lock the journal and read what a killed run has left. Raises BlockingIOError."""
        self._file = open(self.path, "a+b", buffering=FLUSH_BYTES)  # noqa: SIM115  # closed by __exit__
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._end = self._recover()
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
        self._file.close()

    def _recover(self) -> int:
        """Read what a killed run has left; the end of its last whole record."""
        size = os.fstat(self._file.fileno()).st_size
        position = 0
        self._file.seek(0)
        while position + PREFIX.size <= size:
            checksum, header_size, data_size = PREFIX.unpack(self._file.read(PREFIX.size))
            if position + PREFIX.size + header_size + data_size > size:
                break
            header, data = self._file.read(header_size), self._file.read(data_size)
            if zlib.crc32(data, zlib.crc32(header)) != checksum:
                break
            self._remember(json.loads(header), position + PREFIX.size + header_size, data_size)
            position += PREFIX.size + header_size + data_size
        return position

    def _remember(self, row: dict[str, Any], offset: int, size: int) -> None:
        self.rows[row["uid"]] = row
        if size:
            self._places[row["uid"]] = (offset, size)

    def add(self, row: dict[str, Any], data: bytes = b"") -> None:
        """Append the row of one uid with its stored picture. Raises OSError when the disk is full."""
        header = json.dumps(row).encode()
        prefix = PREFIX.pack(zlib.crc32(data, zlib.crc32(header)), len(header), len(data))
        self._file.write(b"".join((prefix, header, data)))
        now = time.monotonic()
        if now - self._flushed >= FLUSH_S:
            self._file.flush()
            self._flushed = now
        self._remember(row, self._end + PREFIX.size + len(header), len(data))
        self._end += PREFIX.size + len(header) + len(data)

    def picture(self, uid: str) -> bytes:
        """The stored bytes of `uid`."""
        offset, size = self._places[uid]
        self._file.flush()
        return os.pread(self._file.fileno(), size, offset)

    def forget(self) -> None:
        """Delete the journal: its unit stands."""
        self.path.unlink(missing_ok=True)
