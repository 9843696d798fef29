"""Webdataset shards with the same bytes on every run, and the offset of every member.

A shard is a plain ustar archive with members `UID.EXT` sorted by uid, mtime 0 and owner 0. `webdataset`, open_clip and
`tar` read it, and any member is one range read.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from curation.errors import UserError
from curation.remedies import remedy
from curation.scratch import name_scratch
from curation.storage import Root

BLOCK = 512
MEMBER_MODE = 0o644
WRITE_BYTES = 256 << 10
"""Bytes that are hashed and written together, few enough to stay in the cache of a core."""
DISK_WRITE_BYTES = 8 << 20
NAME_BYTES = 100
MAX_OCTAL = 8**11


def _empty_header() -> bytes:
    info = tarfile.TarInfo("")
    info.mode, info.mtime = MEMBER_MODE, 0
    return info.tobuf(tarfile.USTAR_FORMAT)


_EMPTY = _empty_header()
_EMPTY_SUM = sum(_EMPTY[:148]) + sum(b"        ") + sum(_EMPTY[156:])
"""POSIX: the checksum counts its own eight bytes as spaces."""
_SUM_BESIDE_SIZE = _EMPTY_SUM - sum(b"00000000000")
_BEFORE_SIZE, _AFTER_SIZE, _END = _EMPTY[NAME_BYTES:124], _EMPTY[135:148], _EMPTY[155:]
_EMPTY_BLOCK = bytes(BLOCK)


class Member(NamedTuple):
    """The place of one file's bytes inside a shard."""

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        """The sample's key: the name up to its first dot, as webdataset splits it."""
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        return self.name.partition(".")[2]


def header(name: str, size: int) -> bytes:
    """The 512-byte ustar header of a regular file. Raises ValueError when the name does not fit."""
    encoded = name.encode()
    if len(encoded) > NAME_BYTES or not name.isascii() or size >= MAX_OCTAL:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, MEMBER_MODE, 0
        return info.tobuf(tarfile.USTAR_FORMAT)
    # tarfile takes longer for three headers than a decoder for a small picture, so a header of its own is filled in.
    digits = b"%011o" % size
    checksum = _SUM_BESIDE_SIZE + sum(encoded) + sum(digits)
    return b"%b%b%b%b%06o\0%b" % (encoded.ljust(NAME_BYTES, b"\0"), _BEFORE_SIZE, digits, _AFTER_SIZE, checksum, _END)


def picture_extension(data: bytes) -> str:
    """The extension of a stored picture by its first bytes: jpg, png, webp, gif. Raises ValueError for other bytes."""
    for magic, extension in ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n", "png"), (b"GIF8", "gif")):
        if data.startswith(magic):
            return extension
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise ValueError(f"stored bytes are no picture that shards hold: {data[:12]!r}")


class ShardWriter:
    """Writes one shard to a local file, sample by sample in the order of their keys, without holding them in memory.

    Use as a context manager; afterwards `members`, `sha256` (hex, of the whole file) and `num_bytes` are set.
    Raises ValueError when keys do not rise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: list[Member] = []
        self.num_bytes = 0
        self._digest = hashlib.sha256()
        self._last_key = ""
        self._pending: list[bytes] = []
        self._num_written = self._num_handed_to_disk = 0

    def __enter__(self) -> ShardWriter:
        self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115  # closed by __exit__
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                end = 2 * BLOCK
                self._pending.append(bytes(end + -(self.num_bytes + end) % tarfile.RECORDSIZE))
                self._count_pending(len(self._pending[-1]))
                self._flush()
        finally:
            self._file.close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, key: str, files: Mapping[str, bytes]) -> dict[str, Member]:
        """Append the files of one sample (extension → bytes) in the given order; returns the place of each."""
        if key <= self._last_key:
            raise ValueError(f"sample {key} after {self._last_key}: keys of a shard must rise")
        if "." in key:
            raise ValueError(f"the key {key} has a dot, which ends a key in webdataset")
        self._last_key = key
        return {extension: self._add_file(f"{key}.{extension}", data) for extension, data in files.items()}

    def _add_file(self, name: str, data: bytes) -> Member:
        size = len(data)
        member = Member(name, self.num_bytes + BLOCK, size)
        padding = -size % BLOCK
        self._pending += (header(name, size), data, _EMPTY_BLOCK[:padding])
        self._count_pending(BLOCK + size + padding)
        self.members.append(member)
        return member

    def _count_pending(self, num_bytes: int) -> None:
        """Count what was appended to `_pending`."""
        self.num_bytes += num_bytes
        if self.num_bytes - self._num_written >= WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write and hash the pending bytes together: one write for each member would take longer."""
        data = memoryview(b"".join(self._pending))
        self._digest.update(data)
        self._pending.clear()
        self._num_written = self.num_bytes
        while data:
            data = data[self._file.write(data) :]
        if self._num_written - self._num_handed_to_disk >= DISK_WRITE_BYTES:
            self._start_disk_writes()

    def _start_disk_writes(self) -> None:
        """Let the disk begin to write, which saves a sixth of the time that `publish` waits for the disk."""
        if sys.platform == "linux":  # there this advice starts the writing of pages that are not on disk yet
            size = self._num_written - self._num_handed_to_disk
            os.posix_fadvise(self._file.fileno(), self._num_handed_to_disk, size, os.POSIX_FADV_DONTNEED)
        self._num_handed_to_disk = self._num_written


def index(root: Root, rel: str) -> Iterator[Member]:
    """Yield the regular members of the shard at `rel` in their order; any program may have written it.

    Raises UserError when the archive is truncated or no tar.
    """
    try:
        with root.open(rel) as f, tarfile.open(fileobj=f, mode="r:") as archive:
            end = 0
            for info in archive:
                if info.isreg():
                    end = info.offset_data + info.size
                    yield Member(name=info.name, offset=info.offset_data, size=info.size)
            size = f.seek(0, io.SEEK_END)
    except tarfile.TarError as error:
        raise UserError(f"{root.url(rel)} is not a readable tar ({error}).") from error
    if size < end:
        raise UserError(f"{root.url(rel)} is truncated: {size} bytes, its last member ends at {end}.")


def read_member(root: Root, shard: str, offset: int, size: int, sha256: str | None = None) -> bytes:
    """`size` bytes at `offset` of `shard`, in one range read.

    Raises UserError when no such bytes are there, or when they have another `sha256` (hex) than the given one.
    """
    if offset < 0 or size < 0:
        raise UserError(f"A table names {size} bytes at {offset} of {root.url(shard)}: `curate verify` names the row.")
    data = root.read_bytes(shard, offset, size)
    check_member(root, shard, offset, size, sha256, data)
    return data


def check_member(root: Root, shard: str, offset: int, size: int, sha256: str | None, data: bytes) -> None:
    """Raise UserError unless `data`, read at `offset` of `shard`, has that size and, where it is given, that sha256."""
    if len(data) != size:
        found = f"is truncated: {len(data)} of {size} bytes at {offset}"
    elif sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        found = f"is damaged: the {size} bytes at {offset} are not those that were stored"
    else:
        return
    raise UserError(f"{root.url(shard)} {found}; {remedy(shard)}.")


def copy_shard(
    root: Root,
    shard: str,
    target: Root,
    keeps: Callable[[str], bool],
    name: Callable[[str], str],
    sums: Mapping[str, str] | None = None,
) -> tuple[str, dict[str, int]]:
    """Publish into `target` what `shard` of `root` has of the keys for which `keeps` holds; nothing when that is none.

    `name` gives the path for the sha256 of the new shard. Returns that path, and where the first member of each key,
    which is its picture, begins now. `sums` has the sha256 (hex) that pictures of keys must have.
    Raises UserError when the shard is damaged.
    """
    files, offsets = dict[str, dict[str, Member]](), dict[str, int]()
    for member in index(root, shard):
        if keeps(member.key):
            files.setdefault(member.key, {})[member.extension] = member
    with tempfile.TemporaryDirectory(prefix=name_scratch(target, "copy"), dir=target.scratch()) as folder:
        path = Path(folder, "shard.tar")
        with ShardWriter(path) as writer:
            for key in sorted(files):
                data = {ext: read_member(root, shard, one.offset, one.size) for ext, one in files[key].items()}
                first = next(iter(files[key].values()))
                check_member(root, shard, first.offset, first.size, (sums or {}).get(key), data[first.extension])
                offsets[key] = next(iter(writer.add(key, data).values())).offset
        rel = name(writer.sha256)
        if writer.members:
            target.publish(rel, path)
    return rel, offsets


def file_sha256(root: Root, rel: str, chunk_bytes: int = 1 << 20) -> str:
    """sha256 (hex) of the file at `rel`, read in chunks."""
    digest = hashlib.sha256()
    with root.open(rel) as f:
        while chunk := f.read(chunk_bytes):
            digest.update(chunk)
    return digest.hexdigest()
