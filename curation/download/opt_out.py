"""Opt-out lists: what must not be fetched or kept, by URL, by host, or by sha256 of the picture.

Lists may be long and a node runs many tasks. So a node reads the lists once (300,000 lines or 26 MB a second) into a
sorted file of 64-bit hashes, 8 bytes an entry, which all its tasks map into memory. With n entries, one in 2^64 / n
look-ups of what is on no list is refused by mistake: one in 10^11 with a hundred million entries.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import functools
import hashlib
import ipaddress
import itertools
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

from curation.errors import UserError
from curation.fetch.addresses import Address
from curation.fetch.urls import BadUrlError, Target, canonicalise_path, parse_url
from curation.files import whole_file
from curation.schema import Status
from curation.storage import fingerprint
from curation.version import __version__

SHA256 = re.compile(r"[0-9a-fA-F]{64}")
ParseEntry = Callable[[str], str | None]
"""The key of an entry, None for one that can match nothing ever fetched. Raises ValueError or BadUrlError."""
COMMENT = re.compile(r"(?:^|\s)#.*", re.DOTALL)
MAX_LABELS = 127
"""A host name has no more (RFC 1035 2.3.4)."""
DATED = {"mtime", "modified", "lastmodified", "updated", "created", "etag", "contentmd5", "digest", "generation"}
"""Names of what a file system says of a file and what changes with its content, without their hyphens."""
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
HASH = np.dtype("<u8")


@dataclass(frozen=True)
class OptOut:
    """The entries of all lists, hashed and sorted in `file`; None for no lists.

    `forgotten` are the digests of what a root was asked to forget (curation/download/tombstones.py), which no list has.
    """

    file: Path | None = None
    forgotten: frozenset[bytes] = frozenset()

    def __reduce__(self) -> tuple[Any, ...]:
        return OptOut, (self.file, self.forgotten)

    @functools.cached_property
    def _hashes(self) -> NDArray[np.uint64]:
        assert self.file is not None
        return np.asarray(np.load(self.file, mmap_mode="r"))

    def refuses_url(self, url: str) -> bool:
        """Whether `url`, in the form in which it would be fetched, its host, or a domain above that host is listed."""
        if self.file is None and not self.forgotten:
            return False
        try:
            target = parse_url(url)
        except BadUrlError:
            return False
        return self._lists_any(list_target_keys(target))

    def refuses_sha256(self, sha256: str | None) -> bool:
        """Whether the picture with this sha256 (hexadecimal) is listed."""
        return sha256 is not None and self._lists_any([sha256_key(sha256)])

    def has_key(self, key: str) -> bool:
        """Whether an entry has this key."""
        return self._lists_any([key])

    @property
    def is_empty(self) -> bool:
        """Whether there is no entry."""
        return self.file is None or len(self._hashes) == 1

    def explain_sha256(self, sha256: str | None) -> str | None:
        """Why the picture with this sha256 (hexadecimal) may not be kept; None when it may."""
        if sha256 is not None and self._forgets_any([sha256_key(sha256)]):
            return "its sha256 was forgotten"
        return "its sha256 is on an opt-out list" if self.refuses_sha256(sha256) else None

    def _forgets_any(self, keys: list[str]) -> bool:
        return bool(self.forgotten) and any(digest_key(key) in self.forgotten for key in keys)

    def _lists_any(self, keys: list[str]) -> bool:
        if self._forgets_any(keys):
            return True
        if self.file is None:
            return False
        wanted = np.frombuffer(b"".join(map(_hash_key, keys)), HASH)
        hashes = self._hashes
        return bool((hashes[np.searchsorted(hashes, wanted)] == wanted).any())


def load_opt_out(paths: Sequence[str], folder: Path) -> OptOut:
    """Load the lists at `paths`; their hashes are kept in `folder` until one of the lists changes.

    A line holds one entry: a URL, which stands for itself and, without a path, for its host; a host, also written
    `*.host`, which stands for itself and for all hosts below it; or a sha256. `#` starts a comment, also after a space.
    URLs with a scheme that is never fetched are skipped. Raises UserError when a list cannot be read, or when a line
    would match nothing.
    """
    file = _hashes_file(paths, folder)
    if file is None:
        return OptOut()
    make_once(file, lambda: write_hashes(file, _read_all(paths)))
    return OptOut(file)


def make_once(file: Path, make: Callable[[], None]) -> None:
    """Call `make` unless `file` stands, which it writes; one process of this machine at a time."""
    if file.exists():
        return
    with open(file.with_suffix(".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the tasks of a node start together: one reads the lists, the others wait
        if not file.exists():
            make()


def check_opt_out(paths: Sequence[str], folder: Path) -> None:
    """Raise UserError for lists that `load_opt_out` would refuse; does not write or read again what that has kept."""
    file = _hashes_file(paths, folder)
    if file is not None and not file.exists():
        collections.deque(_read_all(paths), maxlen=0)


def _hashes_file(paths: Sequence[str], folder: Path) -> Path | None:
    """Where the hashes of the lists' entries stand once they have been read; None for no lists."""
    return folder / f"opt-out-{name_state(paths, _WHAT)}.npy" if paths else None


_WHAT = "opt-out list"


def name_state(paths: Sequence[str], what: str) -> str:
    """A name for the lists as they are now, for this user and version. Raises UserError when one cannot be read."""
    lists = [(path, _describe_state(path, what)) for path in paths]
    return fingerprint([__version__, os.getuid(), lists])


def _describe_state(path: str, what: str) -> str:
    """What recognises an unchanged list: what its file system says of it, where that has a date or a tag, and else the
    sha256 of its content, for which it is read.
    """
    try:
        fs, name = fsspec.core.url_to_fs(path)
        known = {key: value for key, value in fs.info(name).items() if value is not None}
        if DATED & {key.lower().replace("-", "").replace("_", "") for key in known}:
            return repr(sorted(known.items()))
        with fsspec.open(path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"The {what} {path} cannot be read: {error}.") from error


def write_hashes(file: Path, keys: Iterable[str]) -> None:
    """Write the sorted hashes of `keys`, in one step."""
    # The greatest number is the last entry, so that every search finds an index inside the array.
    hashes = (int.from_bytes(_hash_key(key), "little") for key in keys)
    write_sorted(file, np.fromiter(itertools.chain(hashes, [2**64 - 1]), HASH))


def write_sorted(file: Path, values: np.ndarray) -> None:
    """Write `values`, sorted, in one step."""
    with whole_file(file) as f:
        np.save(f, np.sort(values))


def _read_all(paths: Iterable[str]) -> Iterator[str]:
    return (key for path in paths for key in read_keys(path, _WHAT, parse_entry))


def read_keys(path: str, what: str, parse: ParseEntry) -> Iterator[str]:
    """Yield the key of each entry of the list at `path`; `what` it is called in a UserError, which names the line."""
    try:
        with fsspec.open(path, "rt", encoding="utf-8-sig") as f:
            for number, line in enumerate(f, 1):
                entry = (COMMENT.sub("", line) if "#" in line else line).strip()
                try:
                    key = parse(entry) if entry else None
                except (BadUrlError, ValueError) as error:
                    reason = error.detail if isinstance(error, BadUrlError) else error
                    raise UserError(f"The {what} {path} has {entry[:100]!r} in line {number}: {reason}.") from error
                if key is not None:
                    yield key
    except (OSError, UnicodeError) as error:
        raise UserError(f"The {what} {path} cannot be read: {error}.") from error


def parse_entry(entry: str) -> str | None:
    """The key of `entry`, None for a URL that is never fetched. Raises ValueError or BadUrlError for a wrong entry."""
    if len(entry) == 64 and SHA256.fullmatch(entry):
        return sha256_key(entry)
    if "://" not in entry:
        return parse_host(entry)
    try:
        target = parse_url(entry)
    except BadUrlError as error:
        if error.status is Status.UNSUPPORTED_SCHEME:
            return None
        raise
    if "*" in target.host or target.path.endswith("/*"):
        raise ValueError("a URL stands for itself alone, so name the host")
    return url_key(target) if target.path != "/" else _host_key(target.host)


def parse_host(entry: str) -> str:
    """The key of the host that `entry` names, also as `*.host`. Raises ValueError or BadUrlError for what is none."""
    name = entry.removeprefix("*").removeprefix(".")
    target = parse_url(f"http://{name}/")
    if "@" in name or "*" in target.host or target.path not in ("/", "//"):
        raise ValueError("no URL, host or sha256")
    if name == entry and not set(target.host.rstrip(".")) & {".", ":"}:
        raise ValueError(f"a single word, so write *.{name} if it is a host")
    return _host_key(target.host)


def url_key(target: Target) -> str:
    """The key of one URL, the same for all its spellings."""
    host = _canonicalise_host(target.host)
    return f"url {target.scheme} {host} {target.port} {canonicalise_path(target.path)}"


def _host_key(host: str) -> str:
    return f"host {_canonicalise_host(host)}"


def list_target_keys(target: Target) -> list[str]:
    """Every key under which a list, or a request to forget, can name `target`: its URL, its host, the hosts above."""
    return [url_key(target), *_list_host_keys(target.host)]


def _list_host_keys(host: str) -> list[str]:
    """The keys of `host` and of the hosts above it; an address, and what ends in a number as one, has none above it."""
    labels = host.rstrip(".").split(".")[-MAX_LABELS:]
    if ":" in host or _NUMBER.fullmatch(labels[-1]):
        return [_host_key(host)]
    return [f"host {'.'.join(labels[i:])}" for i in range(len(labels))]


def _canonicalise_host(host: str) -> str:
    """`host` without the dot at its end; an address in its usual form, however it was written."""
    address = _read_address(host)
    return host.rstrip(".") if address is None else str(address)


def _read_address(host: str) -> Address | None:
    """The address that a connection to `host` goes to without a look-up; None for a name.

    inet_aton reads decimal, octal, hexadecimal and shortened forms, as getaddrinfo does when the host is asked.
    """
    name = host.rstrip(".")
    with contextlib.suppress(ValueError, OSError):
        if ":" in name:
            inside = ipaddress.IPv6Address(name)
            return inside.ipv4_mapped or inside
        if _NUMBER.fullmatch(name.rpartition(".")[2]):
            return ipaddress.IPv4Address(socket.inet_aton(name))
    return None


def sha256_key(sha256: str) -> str:
    """The key of a picture by the sha256 (hexadecimal) of its bytes."""
    return f"sha256 {sha256.lower()}"


def digest_key(key: str) -> bytes:
    """What a tombstone keeps of a key: its sha256, from which nobody reads it back."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _hash_key(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=HASH.itemsize).digest()
