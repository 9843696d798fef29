"""The members of a tar that anybody may have written, found by its headers alone.

Python's tarfile believes what headers say: a negative size sends it back, a long one takes memory. Here each number is
compared with the size of the file first, and reading stops at the first header that cannot be one. What stands before
it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from curation.shards import BLOCK, Member

MAX_META_BYTES = 1 << 20
"""The longest extended header that is read; names and sizes take some hundred bytes."""
MAX_MEMBERS = 10_000_000
MAX_PADDING_BYTES = 1 << 20
"""How far behind an end mark a further archive is looked for; GNU tar pads to 10 KiB, with options to some more."""
_EMPTY = bytes(BLOCK)
_REGULAR, _HARD_LINK, _FOLDER = b"0\x007", b"1", b"5"
_WITHOUT_DATA = b"123456"
_GNU_NAME, _GNU_LINK_NAME, _GNU_SPARSE, _PAX, _PAX_GLOBAL = b"L", b"K", b"S", b"xX", b"g"
_SUFFIXES = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"PK", "zip"),
)


class DamagedTarError(Exception):
    """The bytes at `offset` are no header of a tar; `str()` of it says why."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"{why} at byte {offset:,}")


class Entry(NamedTuple):
    """One member that is no folder. `member` is None for what has no bytes of its own in one piece (links, devices)."""

    name: str
    member: Member | None


@dataclass
class _Extended:
    """What extended headers say of the member behind them."""

    name: str | None = None
    size: int | None = None
    is_sparse: bool = False


def recognise_compression(start: bytes) -> str | None:
    """The compression whose magic number `start` has, None when it has none."""
    return next((name for magic, name in _SUFFIXES if start.startswith(magic)), None)


def walk(f: BinaryIO, num_bytes: int) -> Iterator[Entry]:
    """Yield the members of the tar `f` of `num_bytes` bytes in their order. A hard link has the bytes it links to.

    Raises DamagedTarError where the archive is torn or no tar.
    """
    position, extended, known = 0, _Extended(), dict[str, Member]()
    for _ in range(MAX_MEMBERS):
        header_at, block = _find_header(f, position, num_bytes)
        if not block:
            return
        kind, size = block[156:157], _read_size(block, header_at)
        data_at = header_at + BLOCK
        if kind in _PAX or kind in (_PAX_GLOBAL, _GNU_NAME, _GNU_LINK_NAME):
            data = _read_meta(f, data_at, size, num_bytes)
            _read_extended(kind, data, extended, header_at)
            position = data_at + _round_up(size)
            continue
        name = extended.name or _read_name(block)
        size = size if extended.size is None else extended.size
        if kind == _GNU_SPARSE:
            data_at = _skip_sparse_map(f, block, data_at, num_bytes)
        size = 0 if kind in _WITHOUT_DATA else size
        if data_at + size > num_bytes:
            raise DamagedTarError(header_at, f"the member {name} of {size:,} bytes is cut off")
        member = None
        if kind in _REGULAR and not extended.is_sparse:
            member = known[name] = Member(name, data_at, size)
        elif kind == _HARD_LINK and (target := known.get(_text(block[157:257]))) is not None:
            member = known[name] = target._replace(name=name)
        if kind != _FOLDER and not name.endswith("/"):
            yield Entry(name, member)
        position, extended = data_at + _round_up(size), _Extended()
    raise DamagedTarError(position, f"more than {MAX_MEMBERS:,} members end")


def _round_up(size: int) -> int:
    return size + -size % BLOCK


def _find_header(f: BinaryIO, position: int, num_bytes: int) -> tuple[int, bytes]:
    """Where the next header is, and its bytes; none when only zeros follow. One archive may stand behind another."""
    f.seek(position)
    end = min(num_bytes, position + MAX_PADDING_BYTES)
    while position < end:
        block = f.read(BLOCK)
        if block != _EMPTY[: len(block)]:
            _check_header(block, position)
            return position, block
        position += BLOCK
    return position, b""


def _check_header(block: bytes, position: int) -> None:
    """Compare the checksum: the sum of all bytes, its own eight as spaces; some writers sum signed bytes."""
    if len(block) < BLOCK:
        raise DamagedTarError(position, "a header is cut off")
    total, wanted = sum(block) - sum(block[148:156]) + 8 * ord(" "), _parse_number(block[148:156])
    if wanted != total and wanted != total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        raise DamagedTarError(position, "there is no tar header")


def _parse_number(digits: bytes) -> int | None:
    """A number in octal or, by GNU's extension, in base 256; None when it is none."""
    if digits[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(digits[1:], "big") - (256 ** (len(digits) - 1) if digits[:1] == b"\xff" else 0)
    try:
        return int(digits.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return None


def _read_size(block: bytes, position: int) -> int:
    size = _parse_number(block[124:136])
    if size is None or size < 0:
        raise DamagedTarError(position, f"a member has the size {'unreadable' if size is None else size}")
    return size


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _read_name(block: bytes) -> str:
    name, prefix = _text(block[:100]), _text(block[345:500])
    return f"{prefix}/{name}" if prefix and block[257:263] == b"ustar\0" else name


def _read_meta(f: BinaryIO, position: int, size: int, num_bytes: int) -> bytes:
    if size > MAX_META_BYTES or position + size > num_bytes:
        raise DamagedTarError(position - BLOCK, f"an extended header of {size:,} bytes stands")
    f.seek(position)
    return f.read(size)


def _read_extended(kind: bytes, data: bytes, extended: _Extended, position: int) -> None:
    if kind == _GNU_NAME:
        extended.name = _text(data)
    elif kind in _PAX:
        for key, value in _parse_pax(data, position):
            if key == b"path":
                extended.name = value.decode("utf-8", "backslashreplace")
            elif key == b"size":
                if not value.isdigit() or len(value) > 20:
                    raise DamagedTarError(position, "an extended header has a size that is no number")
                extended.size = int(value)
            elif key.startswith(b"GNU.sparse."):
                extended.is_sparse = True


def _parse_pax(data: bytes, position: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a pax header, each record `LENGTH KEY=VALUE` and a line feed (POSIX.1-2001)."""
    start = 0
    while start < len(data):
        digits, _, _ = data[start : start + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = data[start + len(digits) + 1 : start + length - 1]
        if length <= len(digits) + 1 or start + length > len(data) or b"=" not in record:
            raise DamagedTarError(position, "an unreadable extended header stands")
        key, _, value = record.partition(b"=")
        yield key, value
        start += length


def _skip_sparse_map(f: BinaryIO, block: bytes, position: int, num_bytes: int) -> int:
    """Where the data of GNU's sparse member begins, behind the blocks that continue its map."""
    is_continued = block[482]
    while is_continued and position + BLOCK <= num_bytes:
        f.seek(position)
        is_continued = f.read(BLOCK)[504]
        position += BLOCK
    return position
