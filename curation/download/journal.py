"""The journal of a unit: its ended rows and their pictures on local disk, so that memory stays flat and a kill costs
little.

A record is a header (JSON of the row) and the bytes of the picture. A checksum covers the header. The row's own
`stored_sha256` covers the picture; where the row has none, the checksum covers the picture too. Reading stops at the
first record that is not whole, where the kill came. Records reach the file at least twice a second, so a kill costs
half a second of work.
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

from curation.schema import DownloadRow

FLUSH_S = 0.5
FLUSH_BYTES = 256 << 10
PREFIX = struct.Struct(">IIQ")
"""crc32 of the header (and of the picture if the row has no sha256), length of the header, length of the picture."""
_json = json.JSONEncoder(check_circular=False).encode


class Journal:
    """Append-only journal of one unit: `with Journal(path).open() as journal`.

    `rows` maps a uid to the row that was added last; pictures stay in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, DownloadRow] = {}
        self._offsets: dict[str, tuple[int, int]] = {}
        self._waiting: list[bytes] = []
        """Records that are not in the file yet; the last of them ends at offset `_end`."""
        self._end = self._written = 0
        self._flushed = 0.0

    def open(self) -> Journal:
        """Lock the journal and read the records of a killed run. Raises BlockingIOError when another process has it."""
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115  # closed by __exit__
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._end = self._written = self._recover()
            self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise
        return self

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._flush()
        finally:
            self._file.close()

    def _recover(self) -> int:
        """Read the records of a killed run; returns where its last whole record ends."""
        size = os.fstat(self._file.fileno()).st_size
        position = 0
        with open(self.path, "rb") as file:
            while position + PREFIX.size <= size:
                checksum, header_size, data_size = PREFIX.unpack(file.read(PREFIX.size))
                if position + PREFIX.size + header_size + data_size > size:
                    break
                row = _read_row(checksum, file.read(header_size), file.read(data_size))
                if row is None:
                    break
                self._remember(row, position + PREFIX.size + header_size, data_size)
                position += PREFIX.size + header_size + data_size
        return position

    def _remember(self, row: DownloadRow, offset: int, size: int) -> None:
        self.rows[row["uid"]] = row
        if size:
            self._offsets[row["uid"]] = (offset, size)
        else:
            self._offsets.pop(row["uid"], None)

    def add(self, row: DownloadRow, data: bytes = b"") -> None:
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
        """Write what waits in one step. Joining records when they are added would copy every byte once more."""
        data = memoryview(b"".join(self._waiting))
        self._waiting.clear()
        self._written, self._flushed = self._end, time.monotonic()
        while data:
            data = data[self._file.write(data) :]

    def read_picture(self, uid: str) -> bytes:
        """The stored bytes of `uid`."""
        offset, size = self._offsets[uid]
        if offset + size > self._written:
            self._flush()
        return os.pread(self._file.fileno(), size, offset)

    def delete(self) -> None:
        """Delete the journal, because its unit is published."""
        self.path.unlink(missing_ok=True)


def _read_row(checksum: int, header: bytes, data: bytes) -> DownloadRow | None:
    """The row of a record; None when the record is damaged."""
    of_header = zlib.crc32(header)
    if checksum not in (of_header, zlib.crc32(data, of_header)):
        return None
    row: DownloadRow = json.loads(header)
    if data and checksum == of_header and hashlib.sha256(data).hexdigest() != row.get("stored_sha256"):
        return None
    return row
