"""ROOT, the folder or bucket that a run fills: unit tables, versioned tables, and what is compared with its sum."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.files import SCRATCH, Names
from curation.name_runs import expand_names, fold_names
from curation.places import lies_in, recorded_folder
from curation.records import CURRENT, STAGE_CONFIG, Kinds, check_record, parse_json
from curation.remedies import remedy
from curation.schema import PACKED_FORMAT, ROOT_FORMAT, SEALED_FORMAT
from curation.sums.ledger import Ledger, Recorder, Sum, is_sound, ledger_file, load_ledger, sum_bytes, table_of
from curation.sums.packed import Places, load_places
from curation.sums.record import RootRecord, parse_record
from curation.unit_files import UnitFiles
from curation.version import __version__

ROW_GROUP_ROWS = 65_536
CONFIG = "_config.json"
PENDING_REMOVAL = "forget/pending.json"
"""Stands while `curate forget` takes rows out of the tables (curation/forget/pending.py)."""
_NO_RECORD = RootRecord(format=ROOT_FORMAT, version="")


def canonical_json(obj: Any) -> bytes:
    """JSON with sorted keys: the same object gives the same bytes."""
    return json.dumps(obj, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"


def fingerprint(obj: Any) -> str:
    """First 12 hex digits of the sha256 of the canonical JSON of `obj`."""
    return hashlib.sha256(canonical_json(obj)).hexdigest()[:12]


class Root(UnitFiles):
    """One run's folder: its tables, and the sum of each file where the root is sealed.

    Files of a folder that `curate adopt` has recorded in a plan may be read too.
    """

    def __init__(self, url: str | Path, **storage_options: Any) -> None:
        super().__init__(url, **storage_options)
        self.recorder: Recorder | None = None
        self._record: RootRecord | None = None
        self._plans_read: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "recorder": self.recorder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plans_read, self._record = set(), None

    def __repr__(self) -> str:
        return f"Root({self.base!r})"

    def is_adopted(self, folder: str) -> bool:
        """Whether a plan of this root has adopted `folder` or one above it; plans that were not read are read now."""
        if not lies_in(folder, self._adopted):
            for name in set(self.list("plans", ".json")) - self._plans_read:
                plan = self.read_record(f"plans/{name}", {"inputs": list})
                self._adopted |= set(map(recorded_folder, plan["inputs"])) if plan.get("adopted") else set()
                self._plans_read.add(name)
        return lies_in(folder, self._adopted)

    def recording(self, recorder: Recorder) -> Root:
        """This root, telling `recorder` of every file that it publishes, in tasks too."""
        told = copy.copy(self)
        told.recorder, told._adopted = recorder, self._adopted
        return told

    def note_published(self, published: Mapping[str, Sum]) -> None:
        """Tell the recorder, if there is one, what a process that works for this one has published."""
        if self.recorder is not None:
            for rel, found in published.items():
                self.recorder.end(rel, found)

    def record(self) -> RootRecord:
        """What root.json says now. Raises UserError when it is damaged, FileNotFoundError when there is none."""
        self.forget_blocks()
        try:
            self._record = parse_record(self.read_bytes("root.json"))
        except ValueError as error:
            raise UserError(f"{self.url('root.json')} is damaged ({error}): {remedy('root.json')}.") from error
        return self._record

    def ledger(self, table: str) -> Ledger:
        """What the files of `table` held when they were published; empty where nothing says so. Raises UserError.

        root.json is read once. What changed since then is found when a file does not hold what was expected.
        """
        known = self._known_record()
        sha256 = (known.sums or {}).get(table)
        if sha256 is None:
            return {}
        file = ledger_file(table, sha256)
        try:
            return load_ledger(sha256, lambda: self.read_bytes(file))
        except FileNotFoundError as error:
            if self.record() != known:
                return self.ledger(table)
            raise UserError(f"{self.url(file)} is missing: {remedy(file, is_there=False)}.") from error
        except ValueError as error:
            raise UserError(f"{self.url(file)} is damaged ({error}): {remedy(file)}.") from error

    def _known_record(self) -> RootRecord:
        """root.json as it was read last; it is read when it was not."""
        self._record = self._record or (self.record() if self.exists("root.json") else _NO_RECORD)
        return self._record

    def places(self, table: str) -> Places:
        """Where the units of `table` lie that lie in packed files. Raises UserError for a damaged ledger."""
        known = self._known_record()
        sha256 = (known.sums or {}).get(table) if known.format == PACKED_FORMAT else None
        return {} if sha256 is None else load_places(sha256, lambda: self.ledger(table))

    def renew_places(self) -> None:
        """Read root.json again: `places` follows the ledgers that it names."""
        with contextlib.suppress(FileNotFoundError):
            self.record()

    def expected(self, rel: str) -> Sum | None:
        """What the file `rel` held when it was published, None where no ledger says so. Raises UserError."""
        table = table_of(rel)
        return None if table is None else self.ledger(table).get(rel)

    def read_whole(self, rel: str) -> bytes:
        """The file `rel`. Raises UserError when it does not hold what its ledger says, FileNotFoundError without it."""
        expected, data = self.expected(rel), self.read_bytes(rel)
        if is_sound(data, expected):
            return data
        # Another process may have replaced it since root.json was read.
        self.record()
        expected, data = self.expected(rel), self.read_bytes(rel)
        if is_sound(data, expected):
            return data
        place = self.known_place(rel)
        where = f" (it lies in {place.file})" if place else ""
        raise UserError(
            f"{self.url(rel)} does not hold what was published{where}: {remedy(place.file if place else rel)}."
        )

    def read_json(self, rel: str) -> Any:
        """The value in file `rel`. Raises UserError when it is damaged, FileNotFoundError without it."""
        try:
            return parse_json(self.read_whole(rel))
        except ValueError as error:
            raise UserError(f"{self.url(rel)} is damaged ({error}): {remedy(rel)}.") from error

    def read_record(self, rel: str, kinds: Kinds) -> dict[str, Any]:
        """As `read_json`, of an object that has the fields `kinds`."""
        return check_record(self.read_json(rel), kinds, self.url(rel), remedy(rel))

    def read_parquet(self, rel: str, columns: Iterable[str] | None = None) -> pa.Table:
        """The table in file `rel`. Raises UserError when it is damaged or may not be read.

        The whole file is compared with its sum where there is one, else the pages that are read with theirs.
        """
        wanted = None if columns is None else list(columns)
        with self._open_parquet(rel) as (file, _):
            return file.read(columns=wanted)

    def read_keyed(self, rel: str, columns: Iterable[str] | None, known: Container[bytes]) -> tuple[pa.Table, bytes]:
        """The `columns` of file `rel`, without any all of them, and the bytes in which it stores its column uid.

        Raises as `read_parquet` does.

        The uids themselves come first unless those bytes are among `known`: whoever has them has the uids, and decoding
        them takes longer than all else. The caller's thread reads alone.
        """
        with self._open_parquet(rel) as (file, stream):
            stored = _read_stored(file, stream, "uid")
            names = file.schema_arrow.names if columns is None else columns
            wanted = [*(["uid"] if stored not in known else []), *(name for name in names if name != "uid")]
            return file.read(columns=wanted, use_threads=False), stored

    def read_schema(self, rel: str) -> pa.Schema:
        """The columns of the parquet file `rel`, from its end alone. Raises UserError when that is damaged."""
        with self._open_parquet(rel, whole=False) as (file, _):
            return file.schema_arrow

    def count_rows(self, rel: str) -> int:
        """The rows of the parquet file `rel`, from its end alone. Raises UserError when that is damaged."""
        with self._open_parquet(rel, whole=False) as (file, _):
            return int(file.metadata.num_rows)

    def _open_native(self, rel: str) -> pa.NativeFile:
        """As `open`. Arrow reads a local file by itself: threads that read do not wait for each other's Python."""
        stream, (_, path, is_local) = self.open(rel), self.at(rel)
        if not is_local or self.known_place(rel) is not None:
            return pa.PythonFile(stream, "r")
        stream.close()
        return pa.OSFile(path)

    @contextlib.contextmanager
    def _open_parquet(self, rel: str, whole: bool = True) -> Iterator[tuple[pq.ParquetFile, pa.NativeFile]]:
        """The file `rel`, and the stream that it is read from."""
        try:
            has_sum = whole and self.expected(rel) is not None
            with pa.BufferReader(self.read_whole(rel)) if has_sum else self._open_native(rel) as stream:
                # Reading ahead, by threads of its own, is for stores that answer late.
                is_far = isinstance(stream, pa.PythonFile)
                yield pq.ParquetFile(stream, pre_buffer=is_far, page_checksum_verification=True), stream
        except PermissionError as error:
            raise UserError(f"{self.url(rel)} may not be read: give this account the right to.") from error
        except (pa.ArrowInvalid, OSError) as error:
            # Arrow raises an OSError without a number for damaged bytes; a store's answers say nothing about the file.
            if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) is not None:
                raise
            raise UserError(f"{self.url(rel)} is not a readable parquet file ({error}): {remedy(rel)}.") from error

    def publish(self, rel: str, data: bytes | Path) -> None:
        """Put `data` (bytes, or a local file, which is moved) under its final name in one atomic step.

        Raises OSError, for example for a full disk; then no file has the name.
        """
        self._check_apart(rel)
        if self.recorder is None or not isinstance(data, bytes) or table_of(rel) is None:
            self.put(rel, data)
            return
        found = sum_bytes(data)
        self.recorder.begin(rel, found)
        self.put(rel, data)
        self.recorder.end(rel, found)

    def publish_json(self, rel: str, obj: Any) -> None:
        self.publish(rel, canonical_json(obj))

    def publish_parquet(self, rel: str, table: pa.Table) -> None:
        """Write `table` with fixed settings: the same table gives the same bytes."""
        self.publish(rel, parquet_bytes(table))

    def remove(self, rel: str) -> None:
        """Delete a file or folder; no error when it is not there."""
        self._check_apart(rel)
        if self.recorder is not None:
            self.recorder.discard(rel)
        self.delete(rel)

    def _check_apart(self, rel: str) -> None:
        """Whoever changes a unit takes its packed file apart before: else two places would hold other bytes."""
        place = self.place_of(rel) if self.known_place(rel) else None
        if place is not None:
            raise RuntimeError(f"{rel} lies in {place.file} and is about to be changed")

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
            raise UserError(f"{self.url(rel)} is damaged (its files have no names): {remedy(rel)}.")
        try:
            return {**record, "files": expand_names(record["files"])}
        except ValueError as error:
            raise UserError(f"{self.url(rel)} is damaged ({error}): {remedy(rel)}.") from error

    def publish_current(self, table: str, fp: str, files: Names, config: Any, inputs: Any) -> None:
        """Make version `fp` of `table` the current one. `files` are paths relative to ROOT."""
        record = {"fingerprint": fp, "files": sorted(files), "config": config, "inputs": inputs}
        self.publish_version(table, {**record, "version": __version__})

    def publish_version(self, table: str, record: dict[str, Any]) -> None:
        """Replace `TABLE/current.json` by `record`, as `current` reads it; long runs of names are folded."""
        self.publish_json(f"{table}/current.json", {**record, "files": fold_names(record["files"])})

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
                raise _other_settings(self.url(table), keys)
        self.publish_json(rel, {"config": wanted, "version": __version__, "fingerprint": fingerprint(wanted)})

    def check_stage(self, table: str, config: dict[str, Any]) -> None:
        """Raise UserError when units of `table` were made with another value of a setting in `config`.

        A setting that the version which made them did not know is left to `begin_stage`.
        """
        rel = f"{table}/{CONFIG}"
        if self.exists(rel) and self.units(table):
            recorded, wanted = self.read_record(rel, STAGE_CONFIG)["config"], json.loads(canonical_json(config))
            keys = sorted(k for k in wanted if k in recorded and recorded[k] != wanted[k])
            if keys:
                raise _other_settings(self.url(table), keys)

    def create(self, sealed: bool = False) -> None:
        """Mark this folder as a root of this version; UserError when it is another version's, or no root at all.

        A `sealed` root has a ledger for each table that `curation.sums.seal` seals.
        """
        self.check_can_create()
        if not self.exists("root.json"):
            number, sums = (SEALED_FORMAT, dict[str, str]()) if sealed else (ROOT_FORMAT, None)
            self.publish_record(RootRecord(format=number, version=__version__, sums=sums))

    def check_can_create(self) -> None:
        """UserError unless this is a root of this version, or a folder that is empty or does not exist yet."""
        if self.exists("root.json"):
            self.check_format()
        elif self.exists("") and any(Path(e["name"]).name != SCRATCH for e in self.fs.ls(self.full(""), detail=True)):
            raise UserError(f"{self.base} is not empty and has no root.json: name a new folder for the root.")

    def publish_record(self, record: RootRecord) -> None:
        """Replace root.json."""
        self.publish_json("root.json", record.fields())
        self._record = record

    def check_format(self) -> None:
        """Raise UserError unless this is a root that this version can read, and no removal of rows is half done."""
        self.check_layout()
        if self.exists(PENDING_REMOVAL):
            raise UserError(
                f"{self.base} is between two states, as `curate forget` was interrupted: "
                f"run `curate forget {self.base}`."
            )

    def check_layout(self) -> None:
        """Raise UserError unless this is a root that this version can read."""
        if not self.exists("root.json"):
            raise UserError(f"{self.base} is no root (it has no root.json): run `curate ingest` first.")
        layout = self.record().format
        if layout not in (ROOT_FORMAT, SEALED_FORMAT, PACKED_FORMAT):
            raise UserError(
                f"{self.base} has layout {layout}, this version ({__version__}) reads layout {ROOT_FORMAT}, "
                f"{SEALED_FORMAT} and {PACKED_FORMAT}: use the version that made it, or a new root."
            )


def _other_settings(url: str, keys: Names) -> UserError:
    # Vectors and scores of pictures that were fetched anew would stay as they are.
    redo = "" if url.endswith("/downloads") else ", or delete that folder to redo the stage"
    return UserError(
        f"{url} was made with other settings ({', '.join(keys)} differ): use the earlier settings or a new root{redo}."
    )


def _read_stored(file: pq.ParquetFile, stream: pa.NativeFile, column: str) -> bytes:
    """The bytes of `column` in all row groups of `file`, as they stand in it: encoded, compressed, with checksums."""
    place, parts = [one.path for one in file.schema].index(column), list[bytes]()
    for group in range(file.metadata.num_row_groups):
        chunk = file.metadata.row_group(group).column(place)
        stream.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        parts.append(stream.read(chunk.total_compressed_size))
    return b"".join(parts)


def parquet_bytes(table: pa.Table) -> bytes:
    """`table` as parquet: zstd, page index, statistics, page checksums, row groups of 65,536 rows; deterministic."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(None),
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        write_page_index=True,
        write_page_checksum=True,
        store_schema=True,
    )
    return bytes(sink.getvalue())
