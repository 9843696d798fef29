"""From a root and a WHERE to an index: DuckDB finds the rows, arrays on the local disk keep them.

An index is built once on a node and kept under the cache folder, named by a hash of everything that decides its rows,
so a second rank, or the same run resumed, maps the files that are there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.caches import cache_folder
from curation.errors import UserError
from curation.freshness import check_not_mixed
from curation.manifest.manifest import Manifest
from curation.manifest.quoting import quote_identifier, quote_text
from curation.records import STAGE_CONFIG
from curation.storage import Root, fingerprint
from curation.sums.packed import packed_folder
from trainer.data import mixing
from trainer.data.index import COLUMNS, META, SHA256_BYTES, TEXT_COLUMNS, UID_BYTES, Index, Meta, write_meta

FORMAT = 3
"""Of the files of an index; another one names other folders."""
KEPT_INDEXES = 16
"""Index folders kept in the cache; the ones unused for longest go first."""
BATCH_ROWS = 1 << 17
MAX_PATH = 4096
_LITERAL = re.compile(r"'((?:[^']|'')*)'")


@dataclass(frozen=True, kw_only=True)
class Query:
    """What decides the rows: `roots` by name, the table, the condition, the groups, the captions."""

    roots: Mapping[str, Root]
    where: str = ""
    table: str = "auto"
    groups: tuple[str, ...] | None = None
    """Names of roots (several roots) or sources (one root) that are mixed, None for one group of all rows."""
    captions: tuple[str, ...] = ()
    verify: bool = False

    @property
    def by_root(self) -> bool:
        return self.groups is not None and set(self.groups) <= set(self.roots)


def open_index(query: Query, folder: Path | None = None) -> Index:
    """The index of `query`, from the cache or built now. Raises UserError: bad SQL, no table, no row left."""
    folder = (folder or cache_folder()) / "index"
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: choose_table(root, query.table) for name, root in query.roots.items()}
    target = folder / _index_name(query, tables)
    with _lock(folder / f"{target.name}.lock"):
        index = _open_kept(target, query)
        if index is None:
            temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
            try:
                _IndexBuilder(query, tables, temporary).build()
                shutil.rmtree(target, ignore_errors=True)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            index = Index(target)
        os.utime(target / META)
    _remove_old(folder)
    return index


def _open_kept(folder: Path, query: Query) -> Index | None:
    """The index in `folder`; None when there is none, or torn or foreign files stand in its place."""
    try:
        index = Index(folder)
        names = [*COLUMNS, *([] if index.meta.captions else TEXT_COLUMNS), *(["sha256"] if query.verify else [])]
        return index if index.is_whole(names) else None
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


def choose_table(root: Root, table: str) -> str:
    """`table`, or for "auto" train_index where there is one and the manifest otherwise. Raises UserError."""
    root.check_format()
    if table not in ("auto", "train_index", "manifest"):
        raise UserError(f"table is {table!r}; allowed: auto, train_index, manifest.")
    packed = root.current("train_index") is not None
    if table == "train_index" and not packed:
        raise UserError(f'{root.base} has no train_index: run `curate pack` first, or take table = "manifest".')
    chosen = ("train_index" if packed else "manifest") if table == "auto" else table
    check_not_mixed(root, ("duplicates", "selection", chosen))
    return chosen


def _index_name(query: Query, tables: Mapping[str, str]) -> str:
    """Hash of what decides the rows. Local files that the condition names count with their time and size."""
    named = map(Path, _list_named_files(query.where))
    files = [[str(path), path.stat().st_mtime_ns, path.stat().st_size] for path in named]
    roots = [[name, root.url(), tables[name], _table_version(root, tables[name])] for name, root in query.roots.items()]
    return fingerprint([FORMAT, roots, query.where, query.groups, query.captions, query.verify, files])


def _list_named_files(where: str) -> list[str]:
    """The local files that the texts of a condition name: what the user wrote there may be read besides the root."""
    named = (literal.replace("''", "'") for literal in _LITERAL.findall(where))
    return [name for name in named if len(name) < MAX_PATH and Path(name).is_file()]


def _table_version(root: Root, table: str) -> Any:
    """What changes when the table does. A later round replaces row files under their names, so their state counts."""
    if table == "train_index":
        current = root.current(table) or {}
        # `curate forget` takes rows out of a version that keeps its fingerprint.
        return [current["fingerprint"], current["forgotten"]] if "forgotten" in current else current["fingerprint"]
    folders = [f for f in root.folders() if f in ("samples", "downloads") or f.startswith("scores_")]
    units = {folder: _list_states(root, folder) for folder in folders}
    configs = [root.read_record(f"{f}/_config.json", STAGE_CONFIG) for f in folders if "_config.json" in units[f]]
    versioned = [(root.current(t) or {}).get("fingerprint") for t in ("duplicates", "selection", "train_index")]
    return fingerprint([units, configs, versioned])


def _list_states(root: Root, folder: str) -> dict[str, list[str]]:
    packed = packed_folder(folder)
    states = root.states(folder) | (root.states(packed) if root.exists(packed) else {})
    return {name: [*state.values()] for name, state in states.items()}


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process of this node at a time; the others wait for what it builds."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_old(folder: Path) -> None:
    def last_use(path: Path) -> float:
        return path.stat().st_mtime if path.exists() else 0.0

    indexes = sorted(folder.glob(f"*/{META}"), key=last_use, reverse=True)
    for meta in indexes[KEPT_INDEXES:]:
        shutil.rmtree(meta.parent, ignore_errors=True)


class _IndexBuilder:
    """Streams the rows of each group into column files, then sorts them into shard order where they are not."""

    def __init__(self, query: Query, tables: Mapping[str, str], folder: Path) -> None:
        self.query, self.tables, self.folder = query, tables, folder
        self.shards: dict[tuple[int, str], int] = {}
        self.beside = set(tables.values()) == {"train_index"} and not query.captions
        self.captions = () if self.beside else query.captions or ("caption",)
        self.columns = dict(COLUMNS) | (TEXT_COLUMNS if self.beside else {})
        if query.verify:
            self.columns["sha256"] = np.dtype((np.uint8, SHA256_BYTES))

    def build(self) -> None:
        groups = []
        with contextlib.ExitStack() as stack:
            names = [*self.columns, *self._text_files()]
            self.files = {name: stack.enter_context(open(self.folder / f"{name}.bin", "wb")) for name in names}
            self.num_rows, self.text_ends = 0, [0] * len(self.captions)
            for name, parts in self._groups():
                start = self.num_rows
                for number, root, condition in parts:
                    self._append(number, root, condition)
                groups.append((name, start, self.num_rows))
        self._check_groups(groups)
        groups = self._arrange(groups)
        shards = tuple(key for key, _ in sorted(self.shards.items()))
        write_meta(
            self.folder,
            Meta(
                num_rows=groups[-1][2],
                digest=self._digest(shards),
                shards=shards,
                groups=tuple(groups),
                captions=self.captions,
                num_without_caption=self._count_without_caption(),
            ),
        )

    def _count_without_caption(self) -> int:
        """Rows whose texts are all empty; files are mapped, so no text is read and little is held."""
        if self.beside:
            return int(np.count_nonzero(self._column("text_size") == 0))
        rows = self._column("uid").shape[0]
        empty = np.ones(rows, bool)
        for k in range(len(self.captions)):
            ends = np.fromfile(self.folder / f"text_{k}.offset.bin", np.uint64)
            empty &= np.diff(ends, prepend=np.uint64(0)) == 0
        return int(np.count_nonzero(empty))

    def _text_files(self) -> list[str]:
        return [name for k in range(len(self.captions)) for name in (f"text_{k}", f"text_{k}.offset")]

    def _groups(self) -> Iterator[tuple[str, list[tuple[int, Root, str]]]]:
        """Each group's name and the (number of the root, root, further condition) that make it up."""
        roots = list(enumerate(self.query.roots.values()))
        if self.query.groups is None:
            yield "all", [(number, root, "") for number, root in roots]
        elif self.query.by_root:
            numbers = {name: number for number, name in enumerate(self.query.roots)}
            for name in self.query.groups:
                yield name, [(numbers[name], self.query.roots[name], "")]
        else:
            for name in self.query.groups:
                yield name, [(number, root, f"source = {quote_text(name)}") for number, root in roots]

    def _append(self, number: int, root: Root, condition: str) -> None:
        table = list(self.tables.values())[number]
        with Manifest(root, allow_files=_list_named_files(self.query.where), check="sums") as manifest:
            for batch in manifest.query(self._sql(table, condition)).to_arrow_reader(BATCH_ROWS):
                self._write(number, batch)

    def _sql(self, table: str, condition: str) -> str:
        conditions = [c for c in (self.query.where, condition) if c.strip()]
        columns = ["unhex(uid) as uid", "shard", '"offset"', "size"]
        if table == "manifest":
            conditions.append("status = 'ok'")
        if self.beside:
            columns += ['txt_offset - "offset" as text_delta', "txt_size as text_size"]
        if self.query.verify:
            columns.append(f"unhex({'sha256' if table == 'train_index' else 'stored_sha256'}) as sha256")
        columns += [
            f"coalesce(cast({quote_identifier(c)} as varchar), '') as text_{k}" for k, c in enumerate(self.captions)
        ]
        # The line break keeps a trailing comment in the condition from swallowing the bracket.
        where = " and ".join(f"({c}\n)" for c in conditions) or "true"
        return f"select {', '.join(columns)} from {table} where {where}"

    def _write(self, number: int, batch: pa.RecordBatch) -> None:
        rows = pa.Table.from_batches([batch])
        shards = rows["shard"].combine_chunks().dictionary_encode()
        if isinstance(shards, pa.ChunkedArray):
            shards = shards.combine_chunks()
        known = [self.shards.setdefault((number, path), len(self.shards)) for path in shards.dictionary.to_pylist()]
        self._put("shard", np.asarray(known, np.uint32)[shards.indices.to_numpy(zero_copy_only=False)])
        for name in self.columns:
            if name == "uid":
                self._put(name, _check_fixed(rows[name], UID_BYTES, "uid"))
            elif name == "sha256":
                self._put(name, _check_fixed(rows[name], SHA256_BYTES, "sha256"))
            elif name != "shard":
                self._put(name, _check_unsigned(rows[name].to_numpy(), self.columns[name], name))
        for k in range(len(self.captions)):
            lengths, text = _split_text(rows[f"text_{k}"])
            self._put(f"text_{k}", text)
            self._put(f"text_{k}.offset", (np.cumsum(lengths) + self.text_ends[k]).astype(np.uint64))
            self.text_ends[k] += int(lengths.sum())
        self.num_rows += len(rows)

    def _put(self, name: str, values: np.ndarray) -> None:
        self.files[name].write(np.ascontiguousarray(values).data)

    def _check_groups(self, groups: list[tuple[str, int, int]]) -> None:
        if self.query.groups is not None:
            counts = {name: stop - start for name, start, stop in groups}
            mixing.check_mix(dict.fromkeys(self.query.groups, 1.0), self._available(counts))
        if not self.num_rows:
            condition = f" WHERE {self.query.where}" if self.query.where else ""
            names = ", ".join(root.base for root in self.query.roots.values())
            raise UserError(f"No row of {names} is left{condition}: try the condition with `curate query`.")

    def _available(self, counts: dict[str, int]) -> dict[str, int]:
        """Rows of every source, also of those that the mix does not name, for the message."""
        if self.query.by_root or all(counts.values()):
            return counts
        for number, root in enumerate(self.query.roots.values()):
            table = list(self.tables.values())[number]
            with Manifest(root) as manifest:
                counted = manifest.query(f"select source, count(*) from {table} group by source").fetchall()
            for source, rows in counted:
                counts.setdefault(source, rows)
        return counts

    def _arrange(self, groups: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
        """Number the shards by name, put each group's rows in the order of shard and offset, drop repeated uids."""
        ranks = np.empty(len(self.shards), np.uint32)
        ranks[[self.shards[key] for key in sorted(self.shards)]] = np.arange(len(self.shards), dtype=np.uint32)
        shard, offset = self._column("shard"), self._column("offset")
        shard[:] = ranks[shard]
        order = [
            np.arange(start, stop)[_find_order(shard[start:stop], offset[start:stop])] for _, start, stop in groups
        ]
        if len(self.query.roots) > 1:
            order = _drop_repeated(self._column("uid"), order)
        stops = np.cumsum([len(rows) for rows in order]).tolist()
        moved = np.concatenate(order)
        if len(moved) < self.num_rows or not np.array_equal(moved, np.arange(self.num_rows)):
            self._reorder(moved)
        return [(name, stop - len(rows), stop) for (name, _, _), rows, stop in zip(groups, order, stops, strict=True)]

    def _column(self, name: str) -> np.ndarray:
        """A writable view of the column file."""
        if not (self.folder / f"{name}.bin").stat().st_size:
            return np.empty((0, *self.columns[name].shape), self.columns[name].base)
        return np.memmap(self.folder / f"{name}.bin", self.columns[name].base, "r+").reshape(
            -1, *self.columns[name].shape
        )

    def _reorder(self, rows: np.ndarray) -> None:
        for name in self.columns:
            np.ascontiguousarray(self._column(name)[rows]).tofile(self.folder / f"{name}.bin")
        for k in range(len(self.captions)):
            self._reorder_text(self.folder / f"text_{k}.bin", self.folder / f"text_{k}.offset.bin", rows)

    @staticmethod
    def _reorder_text(text_path: Path, offset_path: Path, rows: np.ndarray) -> None:
        ends = np.fromfile(offset_path, np.uint64)
        starts = np.concatenate([np.zeros(1, np.uint64), ends[:-1]])
        with open(text_path, "rb") as source, tempfile.TemporaryFile(dir=text_path.parent) as sink:
            size = text_path.stat().st_size
            text = np.memmap(source, np.uint8, "r") if size else np.empty(0, np.uint8)
            for row in rows:
                sink.write(text[starts[row] : ends[row]].data)
            sink.seek(0)
            with open(text_path.with_suffix(".new"), "wb") as target:
                shutil.copyfileobj(sink, target, 1 << 20)
        text_path.with_suffix(".new").replace(text_path)
        np.cumsum((ends - starts)[rows]).astype(np.uint64).tofile(offset_path)

    def _digest(self, shards: Sequence[tuple[int, str]]) -> str:
        digest = hashlib.sha256(repr(shards).encode())
        for name in self.columns:
            digest.update(np.ascontiguousarray(self._column(name)).data)
        return digest.hexdigest()[:32]


def _check_unsigned(values: np.ndarray, dtype: np.dtype[Any], name: str) -> np.ndarray:
    if len(values) and not (values.min() >= 0 and values.max() <= np.iinfo(dtype).max):
        hint = '; captions = {"caption": 1} takes the text from the table' if name.startswith("text") else ""
        raise UserError(f"The table holds a {name} outside 0..{np.iinfo(dtype).max}{hint}.")
    return values.astype(dtype)


def _check_fixed(values: pa.ChunkedArray, width: int, name: str) -> np.ndarray:
    """A column of binary values of one width as uint8 `[n, width]`."""
    lengths, data = _split_text(values)
    if values.null_count or (lengths != width).any():
        raise UserError(f"The table holds a {name} that is not {2 * width} hex digits: `curate verify` names the row.")
    return data.reshape(-1, width)


def _split_text(values: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and concatenated bytes of a string or binary column without nulls."""
    array = values.combine_chunks().cast(pa.large_binary())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    whole = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return np.diff(offsets), whole[offsets[0] : offsets[-1]]


def _find_order(shard: np.ndarray, offset: np.ndarray) -> np.ndarray | slice:
    """What puts rows in the order of (shard, offset); the whole slice when they are."""
    rises = (shard[1:] > shard[:-1]) | ((shard[1:] == shard[:-1]) & (offset[1:] > offset[:-1]))
    return slice(None) if rises.all() else np.lexsort((offset, shard))


def _drop_repeated(uid: np.ndarray, order: list[np.ndarray]) -> list[np.ndarray]:
    """`order` without rows whose uid has come before, in the order of the groups and rows."""
    moved = np.concatenate(order)
    halves = np.ascontiguousarray(uid[moved]).view(np.uint64).reshape(-1, 2)
    ranked = np.lexsort((np.arange(len(moved)), halves[:, 1], halves[:, 0]))
    same = (halves[ranked[1:]] == halves[ranked[:-1]]).all(axis=1)
    repeated = np.zeros(len(moved), bool)
    repeated[ranked[1:][same]] = True
    kept = np.split(~repeated, np.cumsum([len(rows) for rows in order])[:-1])
    return [rows[mask] for rows, mask in zip(order, kept, strict=True)]
