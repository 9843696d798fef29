"""The files of a folder, local or in an object store: where they are, how they are read and how they are published.

A file under its final name is whole. Everything is written under a temporary name and moved in one rename, or put in
one request on an object store, so a kill leaves either the whole file or none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import fsspec

from curation.errors import UserError
from curation.object_store import delete_each, delete_objects, put_object
from curation.places import (
    WEB,
    check_inside,
    check_name,
    check_outside,
    check_scheme,
    folder_of,
    is_elsewhere,
    is_web,
    lies_in,
    web_options,
)
from curation.private_folder import make_private_folder, private_folder_path
from curation.web_range import read_web_range

Names = list[str]
"""For signatures inside Files, where `list` is a method."""
SCRATCH = ".scratch"
"""The folder of unpublished files; what a kill leaves there may be deleted when no job runs."""

_STATE = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "modified", "updated")
"""What file systems call the size, the date and the tag of a file in a listing."""
LOCAL = fsspec.filesystem("file")
NUM_REMOTE_READERS = 16


def _full_path(path: str) -> str:
    return str(LOCAL._strip_protocol(path))


class Files:
    """The files of one folder, local or any fsspec URL (`s3://`, `gs://`, `hdfs://`). Paths given to it are relative.

    Only shards of adopted folders are named by a full path or URL; they are read where they lie, and never written.
    Whatever takes a path raises ForeignPlaceError, a UserError, for every other file outside of the folder.
    """

    def __init__(self, url: str | Path, **storage_options: Any) -> None:
        self.base = str(url)
        self.storage_options = storage_options
        self._adopted: set[str] = set()
        """Folders outside of this one that may be read, with those below them."""
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        return {"base": self.base if not self.is_local else self.path, "storage_options": self.storage_options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _adopted=set())
        self._connect()

    def _connect(self) -> None:
        check_name(self.base)
        try:
            # Listings are not cached, because other machines publish files at the same time.
            options = {"use_listings_cache": False, **self.storage_options}
            is_url = "://" in self.base
            # A path without protocol is a folder on this machine, whatever its characters: `::` begins no other store.
            self.fs, path = fsspec.core.url_to_fs(self.base, **options) if is_url else (LOCAL, _full_path(self.base))
        except (ImportError, ValueError) as error:
            raise UserError(f"Cannot open the root {self.base}: {error}.") from error
        self.path = path.rstrip("/") if path.rstrip("/") else path
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def full(self, rel: str) -> str:
        """Path of `rel` inside the file system, without protocol. Raises ForeignPlaceError for one outside of the root.

        Whatever is read, written or deleted passes here, since a record of a root may name any file.
        """
        check_inside(rel, self.base)
        return f"{self.path}/{rel}" if rel else self.path

    def at(self, rel: str) -> tuple[Any, str, bool]:
        """The file system of `rel`, the path inside it, and whether it is local."""
        self.check_place(rel)
        if not is_elsewhere(rel):
            return self.fs, self.full(rel), self.is_local
        if "://" not in rel:
            return LOCAL, rel, True
        try:
            fs, path = fsspec.core.url_to_fs(rel, **self.options_for(rel))
        except (ImportError, ValueError) as error:
            raise UserError(f"Cannot open {rel}: {error}.") from error
        return fs, path, False

    def options_for(self, url: str) -> dict[str, Any]:
        """Options of the file system of `url`: the root's own where it has the root's scheme."""
        scheme = url.partition("://")[0]
        same = self.storage_options if scheme == self.base.partition("://")[0] else {}
        return {**same, **web_options()} if scheme in WEB else same

    def check_place(self, rel: str) -> None:
        """Raise ForeignPlaceError when `rel` lies outside of the root and of every folder that was adopted."""
        if is_elsewhere(rel):
            check_outside(rel, self.base, self.is_adopted(folder_of(rel)))
        else:
            check_inside(rel, self.base)

    def admit(self, folder: str) -> None:
        """Let the files in and below `folder`, a full path or URL, be read before a plan records it.

        Raises ForeignPlaceError.
        """
        check_scheme(folder, self.base)
        self._adopted.add(folder.rstrip("/"))

    def url(self, rel: str = "") -> str:
        """Path of `rel` with its protocol; a plain path when local."""
        self.check_place(rel)
        if is_elsewhere(rel):
            return rel
        return self.full(rel) if self.is_local else self.fs.unstrip_protocol(self.full(rel))

    def local(self, rel: str = "") -> Path | None:
        """The path of `rel` on this machine, None for an object store."""
        _, path, is_local = self.at(rel)
        return Path(path) if is_local else None

    def exists(self, rel: str) -> bool:
        fs, path, _ = self.at(rel)
        return bool(fs.exists(path))

    def is_link(self, rel: str) -> bool:
        """Whether `rel` is a symbolic link, which only a folder of this machine can hold."""
        local = self.local(rel)
        return local is not None and local.is_symlink()

    def size(self, rel: str) -> int:
        """Size in bytes. Raises FileNotFoundError."""
        fs, path, _ = self.at(rel)
        return int(fs.size(path))

    def list(self, rel: str, suffix: str = "") -> Names:
        """Sorted names of the files directly in folder `rel` that end in `suffix`; empty when there is no folder."""
        return sorted(name for name in self.sizes(rel) if name.endswith(suffix))

    def sizes(self, rel: str) -> dict[str, int]:
        """Bytes of each file directly in folder `rel`, by name, from one listing; empty when there is no folder."""
        if self.is_local:
            return _local_sizes(self.full(rel))
        self.fs.invalidate_cache(self.full(rel))
        try:
            entries = self.fs.ls(self.full(rel), detail=True)
        except FileNotFoundError:
            return {}
        return {e["name"].rsplit("/", 1)[-1]: int(e["size"]) for e in entries if e["type"] == "file"}

    def states(self, rel: str) -> dict[str, dict[str, str]]:
        """Name of each file directly in folder `rel` → its size and its date or tag, as the listing has them."""
        names = set(self.list(rel))
        entries = {entry["name"].rsplit("/", 1)[-1]: entry for entry in self.fs.ls(self.full(rel), detail=True)}
        return {
            name: {key: str(entry[key]) for key in _STATE if entry.get(key) is not None}
            for name, entry in sorted(entries.items())
            if name in names
        }

    def count_readers(self, num_threads: int) -> int:
        """Threads that read or write files where `num_threads` can work: on a store more, most of which wait for it."""
        return num_threads if self.is_local else max(num_threads, NUM_REMOTE_READERS)

    def folders(self) -> Names:
        """Sorted names of the folders directly in the root."""
        self.fs.invalidate_cache(self.path)
        try:
            entries = self.fs.ls(self.path, detail=True)
        except FileNotFoundError:
            return []
        names = (e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")
        return sorted(n for n in names if not n.startswith("."))

    @property
    def scratch_path(self) -> Path:
        """Where `scratch` is, whether it exists or not."""
        return Path(self.path, SCRATCH) if self.is_local else private_folder_path()

    def scratch(self) -> Path:
        """A local folder for files before `publish`, on the disk of a local root, so that moving them is a rename.

        Of an object store it is a folder that only this user can write to: what a journal says is published.
        """
        if not self.is_local:
            return make_private_folder()
        self.scratch_path.mkdir(parents=True, exist_ok=True)
        return self.scratch_path

    def open(self, rel: str) -> BinaryIO:
        """A seekable binary reader. Raises UserError for a pipe or device, which would keep its reader waiting."""
        fs, path, is_local = self.at(rel)
        if is_web(path):
            read_web_range(fs, path, 1, 2)  # a server that knows no ranges is refused before anything relies on them
        return open_regular(path) if is_local else fs.open(path, "rb")

    def read_bytes(self, rel: str, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes from `offset` (all that follow when None) in one range read; fewer where the file ends."""
        fs, path, is_local = self.at(rel)
        if is_local:
            with open_regular(path) as f:
                left = max(0, os.fstat(f.fileno()).st_size - offset)
                f.seek(offset if left else 0, os.SEEK_SET if left else os.SEEK_END)
                return f.read(left if size is None else min(left, size))
        end = None if size is None else offset + size
        if is_web(path):
            return read_web_range(fs, path, offset, end)
        return bytes(fs.cat_file(path, start=offset, end=end))

    def is_adopted(self, folder: str) -> bool:
        """Whether the files of `folder`, a full path or URL, may be read."""
        return lies_in(folder, self._adopted)

    def put(self, rel: str, data: bytes | Path) -> None:
        """Put `data` (bytes, or a local file, which is moved) under its final name in one atomic step.

        Raises OSError, for example for a full disk; then no file has the name.
        """
        if not self.is_local:
            put_object(self.fs, self.full(rel), data)
            if isinstance(data, Path):
                data.unlink()
            return
        target = Path(self.full(rel))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.scratch() / uuid.uuid4().hex
        try:
            if isinstance(data, bytes):
                temporary.write_bytes(data)
            else:
                shutil.move(data, temporary)
            with open(temporary, "rb") as f:
                os.fsync(f.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def delete(self, rel: str) -> None:
        """Delete a file or folder; no error when it is not there. Raises OSError when a store leaves a part of it."""
        if not self.is_local:
            delete_objects(self.fs, self.full(rel))
            return
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.full(rel), recursive=True)

    def delete_files(self, rels: Iterable[str]) -> None:
        """Delete files; no error for one that is not there."""
        paths = [self.full(rel) for rel in rels]
        if self.is_local:
            for path in paths:
                Path(path).unlink(missing_ok=True)
            return
        delete_each(self.fs, paths)


def _local_sizes(folder: str) -> dict[str, int]:
    """As `Files.sizes`, by one call a file: fsspec asks each file for all that is known of it."""
    sizes = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process has deleted it meanwhile
                if entry.is_file(follow_symlinks=False):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
    return sizes


def open_regular(path: str) -> BinaryIO:
    """The local file at `path`, to be read. Raises UserError when it is a pipe, socket or device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe that nobody writes does not wait
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(kind):
            raise UserError(f"{path} is no regular file: delete it, or put the file back that belongs there.")
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A file outside of any ROOT that appears as `target` when it is whole. Raises UserError without its folder.

    What a link points to is replaced, not the link. A pipe, a terminal or another device is written to as it is.
    """
    if not target.parent.is_dir():
        raise UserError(f"There is no folder {target.parent} to write {target.name} in: make it first.")
    if target.is_dir():
        raise UserError(f"{target} is a folder: name a file in it.")
    if (target.exists() and not target.is_file()) or target.absolute().parts[1] in ("dev", "proc"):
        with open(os.open(target, os.O_WRONLY | os.O_APPEND), "wb") as f:
            yield f
        return
    target = target.resolve()
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as f:
            yield f
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
