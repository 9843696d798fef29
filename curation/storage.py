"""ROOT, the folder or bucket that a run fills: atomic publishing, unit tables, versioned tables.

A file under its final name is whole. Everything is written under a temporary name and moved in one rename, or put in
one request on an object store, so a kill leaves either the whole file or none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.places import WEB, check_inside, check_outside, check_scheme, folder_of, is_elsewhere, web_options
from curation.private_folder import make_private_folder, private_folder_path
from curation.records import CURRENT, STAGE_CONFIG, Kinds, advise, check_record, parse_json
from curation.schema import ROOT_FORMAT
from curation.version import __version__

Names = list[str]
"""For signatures inside Root, where `list` is a method."""
ROW_GROUP_ROWS = 65_536
CONFIG = "_config.json"
SCRATCH = ".scratch"
"""The folder of unpublished files; what a kill leaves there may be deleted when no job runs."""


LOCAL = fsspec.filesystem("file")


def canonical_json(obj: Any) -> bytes:
    """JSON with sorted keys: the same object gives the same bytes."""
    return json.dumps(obj, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"


def fingerprint(obj: Any) -> str:
    """First 12 hex digits of the sha256 of the canonical JSON of `obj`."""
    return hashlib.sha256(canonical_json(obj)).hexdigest()[:12]


class Root:
    """One run's folder, local or any fsspec URL (`s3://`, `gs://`, `hdfs://`). Paths given to it are relative.

    Only shards of adopted folders are named by a full path or URL; they are read where they lie, and never written.
    Whatever takes a path raises ForeignPlaceError, a UserError, for every other file outside of the root.
    """

    def __init__(self, url: str | Path, **storage_options: Any) -> None:
        self.base = str(url)
        self.storage_options = storage_options
        self._adopted: set[str] = set()
        """Folders outside of the root whose files may be read."""
        self._plans_read: set[str] = set()
        self._connect()

    def _connect(self) -> None:
        try:
            # Listings are not cached, because other machines publish files at the same time.
            options = {"use_listings_cache": False, **self.storage_options} if "://" in self.base else {}
            self.fs, path = fsspec.core.url_to_fs(self.base, **options)
        except (ImportError, ValueError) as error:
            raise UserError(f"Cannot open the root {self.base}: {error}.") from error
        self.path = path.rstrip("/") if path.rstrip("/") else path
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def __getstate__(self) -> dict[str, Any]:
        return {"base": self.base if not self.is_local else self.path, "storage_options": self.storage_options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _adopted=set(), _plans_read=set())
        self._connect()

    def __repr__(self) -> str:
        return f"Root({self.base!r})"

    def full(self, rel: str) -> str:
        """Path of `rel` inside the file system, without protocol."""
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
            check_outside(rel, self.base, self._is_adopted(folder_of(rel)))
        else:
            check_inside(rel, self.base)

    def admit(self, folder: str) -> None:
        """Let the files of `folder`, a full path or URL, be read before a plan records it. Raises ForeignPlaceError."""
        check_scheme(folder, self.base)
        self._adopted.add(folder.rstrip("/"))

    def _is_adopted(self, folder: str) -> bool:
        """Whether a plan of this root has adopted shards of `folder`; plans that were not read yet are read now."""
        if folder not in self._adopted:
            for name in set(self.list("plans", ".json")) - self._plans_read:
                plan = self.read_record(f"plans/{name}", {"inputs": list})
                self._adopted |= {folder_of(i["path"]) for i in plan["inputs"]} if plan.get("adopted") else set()
                self._plans_read.add(name)
        return folder in self._adopted

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

    def size(self, rel: str) -> int:
        """Size in bytes. Raises FileNotFoundError."""
        fs, path, _ = self.at(rel)
        return int(fs.size(path))

    def list(self, rel: str, suffix: str = "") -> Names:
        """Sorted names of the files directly in folder `rel` that end in `suffix`; empty when there is no folder."""
        self.fs.invalidate_cache(self.full(rel))
        try:
            entries = self.fs.ls(self.full(rel), detail=True)
        except FileNotFoundError:
            return []
        names = (e["name"].rsplit("/", 1)[-1] for e in entries if e["type"] == "file")
        return sorted(n for n in names if n.endswith(suffix))

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
        return bytes(fs.cat_file(path, start=offset, end=end))

    def read_json(self, rel: str) -> Any:
        """The value in file `rel`. Raises UserError when it is damaged, FileNotFoundError without it."""
        try:
            return parse_json(self.read_bytes(rel))
        except ValueError as error:
            raise UserError(f"{self.url(rel)} is damaged ({error}): {advise(rel)}.") from error

    def read_record(self, rel: str, kinds: Kinds) -> dict[str, Any]:
        """As `read_json`, of an object that has the fields `kinds`."""
        return check_record(self.read_json(rel), kinds, self.url(rel), advise(rel))

    def read_parquet(self, rel: str, columns: Iterable[str] | None = None) -> pa.Table:
        """The table in file `rel`. Raises UserError when it is not readable parquet."""
        wanted = None if columns is None else list(columns)
        with self._open_parquet(rel) as file:
            return file.read(columns=wanted)

    def read_schema(self, rel: str) -> pa.Schema:
        """The columns of the parquet file `rel`, without its rows. Raises UserError when it is not readable parquet."""
        with self._open_parquet(rel) as file:
            return file.schema_arrow

    @contextlib.contextmanager
    def _open_parquet(self, rel: str) -> Iterator[pq.ParquetFile]:
        try:
            with self.open(rel) as f:
                yield pq.ParquetFile(f)
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise UserError(
                f"{self.url(rel)} is not a readable parquet file ({error}); delete it and rerun."
            ) from error

    def publish(self, rel: str, data: bytes | Path) -> None:
        """Put `data` (bytes, or a local file, which is moved) under its final name in one atomic step.

        Raises OSError, for example for a full disk; then no file has the name.
        """
        if not self.is_local:
            if isinstance(data, bytes):
                self.fs.pipe_file(self.full(rel), data)
            else:
                self.fs.put_file(str(data), self.full(rel))
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

    def publish_json(self, rel: str, obj: Any) -> None:
        self.publish(rel, canonical_json(obj))

    def publish_parquet(self, rel: str, table: pa.Table) -> None:
        """Write `table` with fixed settings: the same table gives the same bytes."""
        self.publish(rel, parquet_bytes(table))

    def remove(self, rel: str) -> None:
        """Delete a file or folder; no error when it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.full(rel), recursive=True)

    def units(self, table: str) -> Names:
        """Sorted names of the units of `table` that are done.

        Samples and rejects count once their plan is published, so files of a killed ingest are no units.
        """
        names = [name.removesuffix(".parquet") for name in self.list(table, ".parquet")]
        if table not in ("samples", "rejects"):
            return names
        finished = {name.removesuffix(".json") for name in self.list("plans", ".json")}
        return [name for name in names if name.rpartition("-")[0] in finished]

    def missing_units(self, table: str) -> Names:
        """Units of the plan that have no row file in `table` yet."""
        done = set(self.units(table))
        return [unit for unit in self.units("samples") if unit not in done]

    def current(self, table: str) -> dict[str, Any] | None:
        """`TABLE/current.json` of a versioned table, None before its first version."""
        rel = f"{table}/current.json"
        if not self.exists(rel):
            return None
        record = self.read_record(rel, CURRENT)
        if not all(isinstance(file, str) for file in record["files"]):
            raise UserError(f"{self.url(rel)} is damaged (its files have no names): {advise(rel)}.")
        return record

    def publish_current(self, table: str, fp: str, files: Names, config: Any, inputs: Any) -> None:
        """Make version `fp` of `table` the current one. `files` are paths relative to ROOT."""
        record = {"fingerprint": fp, "files": sorted(files), "config": config, "inputs": inputs}
        self.publish_json(f"{table}/current.json", {**record, "version": __version__})

    def begin_stage(self, table: str, config: dict[str, Any]) -> None:
        """Record the resolved `config` beside `table` before its first unit, or check that it is the recorded one.

        Raises UserError when units of `table` were made with another configuration.
        """
        rel = f"{table}/{CONFIG}"
        wanted = json.loads(canonical_json(config))
        if self.exists(rel):
            recorded = self.read_record(rel, STAGE_CONFIG)["config"]
            if recorded == wanted:
                return
            if self.units(table):
                keys = sorted(k for k in {*recorded, *wanted} if recorded.get(k) != wanted.get(k))
                raise UserError(
                    f"{self.url(table)} was made with other settings ({', '.join(keys)} differ): "
                    f"use the earlier settings or a new root, or delete that folder to redo the stage."
                )
        self.publish_json(rel, {"config": wanted, "version": __version__, "fingerprint": fingerprint(wanted)})

    def create(self) -> None:
        """Mark this folder as a root of this version; UserError when it is another version's, or no root at all."""
        self.check_can_create()
        if not self.exists("root.json"):
            self.publish_json("root.json", {"format": ROOT_FORMAT, "version": __version__})

    def check_can_create(self) -> None:
        """UserError unless this is a root of this version, or a folder that is empty or does not exist yet."""
        if self.exists("root.json"):
            self.check_format()
        elif self.exists("") and any(Path(e["name"]).name != SCRATCH for e in self.fs.ls(self.full(""), detail=True)):
            raise UserError(f"{self.base} is not empty and has no root.json: name a new folder for the root.")

    def check_format(self) -> None:
        """Raise UserError unless this is a root that this version can read."""
        if not self.exists("root.json"):
            raise UserError(f"{self.base} is no root (it has no root.json): run `curate ingest` first.")
        layout = self.read_record("root.json", {"format": int})["format"]
        if layout != ROOT_FORMAT:
            raise UserError(
                f"{self.base} has layout {layout}, this version ({__version__}) reads layout {ROOT_FORMAT}: "
                f"use the version that made it, or a new root."
            )


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


def parquet_bytes(table: pa.Table) -> bytes:
    """`table` as parquet: zstd, page index, statistics, row groups of 65,536 rows; deterministic."""
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(None),
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        write_page_index=True,
        store_schema=True,
    )
    return sink.getvalue()
