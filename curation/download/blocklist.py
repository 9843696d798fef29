"""Blocklists: what must not be kept, by URL or host, by sha256 or md5 of the picture, or by its perceptual hash.

They are read as opt-out lists are (curation/download/opt_out.py), with two kinds of entries more, and kept beside them
as sorted arrays that all tasks of a node map into memory.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.download.opt_out import OptOut, make_once, name_state, parse_entry, read_keys, write_hashes, write_sorted
from curation.duplicates.hash_list import HashList

MD5 = re.compile(r"[0-9a-fA-F]{32}")
PHASH = re.compile(r"[0-9a-fA-F]{16}")
_PHASH_KEY = "phash "
_PARTS = ("addresses", "sums", "hashes")


@dataclass(frozen=True, kw_only=True)
class BlocklistFiles:
    """A list as tasks get it: full paths of its files, and the bits in which perceptual hashes may differ."""

    name: str
    paths: tuple[str, ...]
    max_hamming: int

    @property
    def what(self) -> str:
        """What the list is called in sentences."""
        return f"blocklist {self.name}"


@dataclass(frozen=True)
class Blocklist:
    """The entries of one list."""

    addresses: OptOut
    """URLs and hosts."""
    sums: OptOut
    hashes: Path
    """Perceptual hashes, uint64, sorted."""
    max_hamming: int

    @property
    def has_hashes(self) -> bool:
        """Whether there are perceptual hashes among the entries."""
        return len(_map_array(self.hashes)) > 0

    @property
    def has_md5(self) -> bool:
        """Whether there are md5 sums among the entries."""
        return self.sums.has_key(_ANY_MD5)

    def has_md5_of(self, picture: bytes) -> bool:
        """Whether the md5 of `picture` is listed."""
        return self.sums.has_key(_md5_key(hashlib.md5(picture, usedforsecurity=False).hexdigest()))

    def has_near(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each of the perceptual hashes (uint64 `[n]`) is close to a listed one; bool `[n]`."""
        return _open_hashes(self.hashes, self.max_hamming).has_near(hashes)

    def digest(self) -> str:
        """What the entries are, whatever their order, spelling and files."""
        total = hashlib.sha256(str(self.max_hamming if self.has_hashes else 0).encode())
        for file in (self.addresses.file, self.sums.file, self.hashes):
            total.update(np.unique(_map_array(file)).tobytes() if file else b"")
        return total.hexdigest()[:12]


def load_blocklist(files: BlocklistFiles, folder: Path) -> Blocklist:
    """Load a list; what it holds is kept in `folder` until one of its files changes.

    A line is one entry: what an opt-out list may hold, 32 hexadecimal digits for an md5, or 16 for a perceptual hash.
    Raises UserError as `curation.download.opt_out.load_opt_out` does.
    """
    addresses, sums, hashes = _name_parts(files, folder)
    make_once(hashes, lambda: _write(files, addresses, sums, hashes))
    return Blocklist(OptOut(addresses), OptOut(sums), hashes, files.max_hamming)


def check_blocklist(files: BlocklistFiles, folder: Path) -> None:
    """Raise UserError for a list that `load_blocklist` would refuse; writes nothing."""
    if not _name_parts(files, folder)[-1].exists():
        collections.deque(_read(files), maxlen=0)


def _name_parts(files: BlocklistFiles, folder: Path) -> list[Path]:
    state = name_state(files.paths, files.what)
    return [folder / f"blocklist-{state}-{part}.npy" for part in _PARTS]


def _write(files: BlocklistFiles, addresses: Path, sums: Path, hashes: Path) -> None:
    keys = sorted(set(_read(files)))  # one list is read at once; a million entries take 150 MB
    write_hashes(addresses, (key for key in keys if key.startswith(("url ", "host "))))
    found = [key for key in keys if key.startswith(("sha256 ", "md5 "))]
    write_hashes(sums, [*found, *([_ANY_MD5] if any(key.startswith("md5 ") for key in found) else [])])
    values = [int(key.removeprefix(_PHASH_KEY), 16) for key in keys if key.startswith(_PHASH_KEY)]
    write_sorted(hashes, np.array(values, np.uint64))


def _read(files: BlocklistFiles) -> Iterator[str]:
    return (key for path in files.paths for key in read_keys(path, files.what, _parse_entry))


def _parse_entry(entry: str) -> str | None:
    if MD5.fullmatch(entry):
        return _md5_key(entry)
    return f"{_PHASH_KEY}{entry.lower()}" if PHASH.fullmatch(entry) else parse_entry(entry)


def _md5_key(md5: str) -> str:
    return f"md5 {md5.lower()}"


_ANY_MD5 = "md5 of something"
"""The key of an entry that says that there are others by md5."""


@functools.lru_cache(maxsize=64)
def _map_array(file: Path) -> np.ndarray:
    return np.asarray(np.load(file, mmap_mode="r"))


@functools.lru_cache(maxsize=4)
def _open_hashes(file: Path, max_hamming: int) -> HashList:
    """Sorted copies take seconds to make for a million hashes, and serve all units of a process."""
    return HashList(_map_array(file), max_hamming)


def sort_lists(lists: Sequence[BlocklistFiles]) -> tuple[BlocklistFiles, ...]:
    """`lists` by name: a picture that several of them name carries the first one's."""
    return tuple(sorted(lists, key=lambda files: files.name))
