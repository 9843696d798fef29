"""One shard of an img2dataset folder as it was left: which rows are known, and how many only its statistics count.

A row is known by the shard's parquet file, or else by the tar's own members: a torn or missing parquet, or one that
lost rows, costs nothing that the tar still says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from curation import schema
from curation.errors import UserError
from curation.shards import Member, index
from curation.sources import expressions
from curation.storage import Root, fingerprint

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "jfif", "bmp", "tif", "tiff", "avif", "heic")
TEXTS = ("json", "txt")
FORMAT = "img2dataset"
_OWN = {"key": "string", "status": "string", "error_message": "string", "sha256": "string"}
_OWN |= {"original_width": "int", "original_height": "int"}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Files NAME.tar, NAME.parquet and NAME_stats.json of one folder. `path` is the tar's full path or URL."""

    source: str
    path: str
    num_bytes: tuple[int | None, ...]
    """Sizes of tar, parquet and statistics; None where there is no such file."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2].removesuffix(".tar")

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.name, list(self.num_bytes)])

    def file(self, suffix: str) -> str:
        return self.path.removesuffix(".tar") + suffix


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of one shard: columns of samples, then img2dataset's own. `lost` are row numbers known by count only."""

    table: pa.Table
    lost: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return len(self.table) + len(self.lost)


def shards(root: Root, folder: str) -> list[Shard]:
    """Shards of `folder` by name. Raises UserError when it holds no tar."""
    if "://" not in folder:
        folder = str(Path(folder).resolve())
    same = folder.partition("://")[0] == root.base.partition("://")[0]
    fs, inner = fsspec.core.url_to_fs(folder.rstrip("/"), **(root.storage_options if same else {}))
    if not fs.isdir(inner):
        raise UserError(f"There is no folder {folder}: name one that img2dataset wrote.")
    sizes = {e["name"].rsplit("/", 1)[-1]: int(e["size"]) for e in fs.ls(inner, detail=True) if e["type"] == "file"}
    names = sorted(name.removesuffix(".tar") for name in sizes if name.endswith(".tar"))
    if not names:
        raise UserError(f"{folder} holds no NNNNN.tar: only img2dataset's webdataset output can be adopted.")
    base = folder.rstrip("/")
    return [
        Shard(
            source=base.rpartition("/")[2],
            path=f"{base}/{name}.tar",
            num_bytes=tuple(sizes.get(f"{name}{suffix}") for suffix in (".tar", ".parquet", "_stats.json")),
        )
        for name in names
    ]


def read(root: Root, shard: Shard) -> Rows:
    """Every row of `shard` that is known, in the order of its files, and the row numbers that only a count knows."""
    table, counted = _from_parquet(root, shard), _counted(root, shard)
    if table is None or counted is None or len(table) < counted:
        known = set(table["key"].to_pylist()) if table is not None else set[str]()
        beside = _from_tar(root, shard, known)
        table = beside if table is None else pa.concat_tables([table, beside])
    keys = table["key"].to_pylist()
    return Rows(table=table, lost=tuple(_missing(shard, keys, (counted or 0) - len(set(keys)))))


def _from_parquet(root: Root, shard: Shard) -> pa.Table | None:
    """Rows of the parquet file; None when it is missing, torn, or not img2dataset's."""
    try:
        table = root.read_parquet(shard.file(".parquet"))
    except (FileNotFoundError, UserError):
        return None
    names = {name.lower(): name for name in table.column_names}
    return _normal(_placed(root, shard, table, names), shard) if {"url", "key"} <= names.keys() else None


def _placed(root: Root, shard: Shard, table: pa.Table, names: dict[str, str]) -> pa.Table:
    """`table` with the place of its picture for each URL that is missing: the picture is there all the same."""
    urls = pc.fill_null(table[names["url"]].cast(pa.string()), "")
    missing = pc.equal(pc.utf8_trim_whitespace(urls), "")
    if not pc.any(missing).as_py():
        return table
    places = {key: _place(shard, found) for key, files in members(root, shard).items() if (found := picture_of(files))}
    known = pa.array([places.get(key) for key in table[names["key"]].to_pylist()], pa.string())
    column = table.column_names.index(names["url"])
    return table.set_column(column, names["url"], pc.if_else(missing, known, urls))


def _counted(root: Root, shard: Shard) -> int | None:
    """Rows that img2dataset says it was given; None for a shard that it did not finish."""
    try:
        count = root.read_json(shard.file("_stats.json"))["count"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return count if isinstance(count, int) else None


def _normal(table: pa.Table, shard: Shard) -> pa.Table:
    """`table` in the columns of samples and img2dataset's own, as every other source is normalised."""
    lower = {name.lower() for name in table.column_names}
    if not lower & {"caption", "text"}:
        table = table.append_column("caption", pa.nulls(len(table), pa.string()))
    found = expressions(FORMAT, table.schema, shard.path)
    columns = [f"{sql.replace('`', chr(34))} as {target}" for target, sql in found.items()]
    columns += [f"try_cast({name if name in lower else 'null'} as {kind}) as {name}_" for name, kind in _OWN.items()]
    with duckdb.connect() as connection:
        connection.register("found", table)
        inner = f"select {', '.join(columns)} from found"
        named = ", ".join(f"{name}_ as {name}" for name in _OWN)
        samples = ", ".join(name for name in schema.SAMPLES.names if name not in ("uid", "source", "domain"))
        sql = f"select {schema.UID_SQL} as uid, {samples}, {named} from ({inner})"
        return connection.sql(sql).to_arrow_table()


def _from_tar(root: Root, shard: Shard, known: set[str]) -> pa.Table:
    """Rows of pictures in the tar whose keys are not `known`, as their JSON and text members describe them.

    A key has one picture; each further one is the same row again, and so a repeated one.
    """
    described = []
    for key, files in members(root, shard).items():
        pictures = _pictures(files)
        if key in known or not pictures:
            continue
        record = _record(root, shard, files)
        record["url"] = record.get("url") or _place(shard, pictures[0])
        described += [record | {"key": key, "status": "success"}] * len(pictures)
    columns = sorted({name for record in described for name in record} | {"url", "caption", "key", "status"})
    fields = pa.schema([(name, pa.string()) for name in columns])
    return _normal(pa.Table.from_pylist(described, fields), shard)


def _place(shard: Shard, picture: Member) -> str:
    """What identifies a picture whose origin nothing names: where it lies."""
    return f"{shard.path if '://' in shard.path else f'file://{shard.path}'}#{picture.name}"


def _record(root: Root, shard: Shard, files: dict[str, Member]) -> dict[str, str | None]:
    """What the JSON member says, as text; the caption from the text member where it says nothing."""
    texts = {kind: root.read_bytes(shard.path, files[kind].offset, files[kind].size) for kind in TEXTS if kind in files}
    try:
        loaded = json.loads(texts.get("json", b"{}"))
    except ValueError:
        loaded = None
    values: dict[str, Any] = {str(k).lower(): v for k, v in loaded.items()} if isinstance(loaded, dict) else {}
    # img2dataset writes an empty text for a caption that is null.
    caption = values.get("caption", values.get("text", texts.get("txt", b"").decode("utf-8", "replace") or None))
    plain = {name: str(value) for name, value in values.items() if isinstance(value, str | int | float)}
    return plain | {"caption": None if caption is None else str(caption)}


def members(root: Root, shard: Shard) -> dict[str, dict[str, Member]]:
    """Whole members of the tar by key and extension, up to where a torn one ends; empty for what is no tar."""
    found: dict[str, dict[str, Member]] = {}
    end = root.size(shard.path)
    for member in _until_torn(index(root, shard.path)):
        if member.offset + member.size > end:
            continue
        folder, _, name = member.name.removeprefix("./").rpartition("/")
        key, _, extension = name.partition(".")
        found.setdefault(f"{folder}/{key}" if folder else key, {}).setdefault(extension.lower(), member)
    return found


def _until_torn(listed: Iterable[Member]) -> Iterator[Member]:
    try:
        yield from listed
    except UserError:
        return


def picture_of(files: dict[str, Member]) -> Member | None:
    """The picture among the members of one key."""
    return next(iter(_pictures(files)), None)


def _pictures(files: dict[str, Member]) -> list[Member]:
    """Pictures of one key, that of a plain extension first.

    webdataset ends a key at the first dot, and tells what a member is by what follows its last one.
    """
    ends = {extension: extension.rpartition(".")[2] for extension in files}
    found = sorted((e for e in files if ends[e] in PICTURES), key=lambda e: (e != ends[e], PICTURES.index(ends[e]), e))
    return [files[extension] for extension in found]


def _missing(shard: Shard, keys: list[str | None], number: int) -> list[int]:
    """Row numbers of `number` rows that no key names. A key is the shard's number followed by the row's."""
    if number <= 0:
        return []
    ends = (str(key or "").removeprefix(shard.name) for key in keys)
    taken = {int(end) for end in ends if end.isdigit()}
    free = (row for row in range(len(keys) + number) if row not in taken)
    return [row for row, _ in zip(free, range(number), strict=False)]
