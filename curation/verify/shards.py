"""Checks of one shard in one pass: the hash of its content, and place and checksum of each member in a table.

A picture that is a file of its own is a shard with one member, at offset 0, without a header.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from curation.places import is_elsewhere
from curation.shards import BLOCK
from curation.storage import Root

CHUNK_BYTES = 1 << 20
_CONTENT_NAME = re.compile(r"-([0-9a-f]{16})\.tar$")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of one member by a table. `sha256` and `prefix` (of its name) are None where they are not known."""

    offset: int
    size: int
    uid: str
    sha256: str | None = None
    prefix: str | None = None


def find_difference(root: Root, shard: str, places: Sequence[Place], sha256: str | None = None) -> str | None:
    """The first difference in `shard`, None when every place holds what it should. Reads the shard once, in chunks.

    `sha256` (hex) is the recorded hash of the whole shard, None where only its name has a part of it.
    """
    if not root.exists(shard):
        return f"{shard} is not there, and row {places[0].uid if places else '-'} lies in it."
    if root.is_link(shard) and not is_elsewhere(shard):
        return f"{shard} is a link to another file: put the file itself there."
    digest = hashlib.sha256()
    with root.open(shard) as f:
        before, data, last = b"", b"", None
        for place in sorted(places, key=lambda place: place.offset):
            if last != (place.offset, place.size):  # rows of hard links have the same bytes
                gap = place.offset - f.tell()
                if gap < 0:
                    return f"In {shard}, row {place.uid} at offset {place.offset} lies inside the member before it."
                before = _hash_until(f, gap, digest)
                data, last = f.read(place.size), (place.offset, place.size)
                digest.update(data)
            if place.offset == 0 and is_elsewhere(shard):  # a file of its own: in a tar a header comes first
                wrong = _compare_data(place, data)
                if wrong is None and f.read(1):
                    wrong = f"the file has more than the {place.size} bytes that the table says"
            else:
                wrong = _find_fault(place, before, data)
            if wrong:
                return f"In {shard}, row {place.uid} at offset {place.offset}: {wrong}."
        while chunk := f.read(CHUNK_BYTES):
            digest.update(chunk)
    named = None if is_elsewhere(shard) else _CONTENT_NAME.search(shard)
    if named and named[1] != digest.hexdigest()[:16]:
        return f"{shard} is named by sha256 {named[1]} and its content has {digest.hexdigest()[:16]}."
    if sha256 is not None and sha256 != digest.hexdigest():
        return f"{shard} has sha256 {digest.hexdigest()[:16]} as a whole, summary.json says {sha256[:16]}."
    return None


def _hash_until(f: BinaryIO, size: int, digest: hashlib._Hash) -> bytes:
    """Hash the next `size` bytes of `f`; returns the last block of them."""
    last = b""
    while size > 0:
        chunk = f.read(min(size, CHUNK_BYTES))
        if not chunk:
            return b""
        digest.update(chunk)
        size -= len(chunk)
        last = (last + chunk)[-BLOCK:]
    return last


def _find_fault(place: Place, before: bytes, data: bytes) -> str | None:
    if len(data) != place.size:
        return _compare_data(place, data)
    try:
        header = tarfile.TarInfo.frombuf(before, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return "no tar header stands before it"
    if header.size != place.size:
        return f"the member there has {header.size} bytes, the table says {place.size}"
    if place.prefix is not None and not header.name.startswith(place.prefix):
        return f"the member there is called {header.name}"
    return _compare_data(place, data)


def _compare_data(place: Place, data: bytes) -> str | None:
    if len(data) != place.size:
        return f"the shard ends after {len(data)} of {place.size} bytes"
    if place.sha256 is not None and hashlib.sha256(data).hexdigest() != place.sha256:
        return f"its bytes have sha256 {hashlib.sha256(data).hexdigest()[:16]}…, the table says {place.sha256[:16]}…"
    return None
