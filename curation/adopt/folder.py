"""One shard of an img2dataset folder: the rows that its files describe, and the rows that only its statistics count.

The shard's parquet file describes rows, and so do the tar's own members: where the parquet file is torn, missing or
lacks rows, everything that the tar says about them is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from curation import schema
from curation.errors import UserError
from curation.records import parse_json
from curation.shards import Member, index
from curation.sources import column_expressions
from curation.storage import Root, fingerprint

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "jfif", "bmp", "tif", "tiff", "avif", "heic")
TEXTS = ("json", "txt")
FORMAT = "img2dataset"
_IMG2DATASET_COLUMNS = {"key": "string", "status": "string", "error_message": "string", "sha256": "string"}
_IMG2DATASET_COLUMNS |= {"original_width": "int", "original_height": "int"}


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


class Img2datasetRow(TypedDict):
    """What `adopt` reads of one row of `ShardRows.table`; img2dataset's own columns keep their names."""

    uid: str
    key: str
    status: str
    error_message: str | None
    sha256: str | None
    original_width: int | None
    original_height: int | None


@dataclass(frozen=True, kw_only=True)
class ShardRows:
    """The rows of one shard: `table` has the columns of samples, then img2dataset's own.

    `lost` are the numbers of rows that img2dataset counts and no file describes.
    """

    table: pa.Table
    lost: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return len(self.table) + len(self.lost)


def list_shards(root: Root, folder: str) -> list[Shard]:
    """Shards of `folder` in the order of their names. Raises UserError when it holds no tar."""
    if "://" not in folder:
        folder = str(Path(folder).resolve())
    root.admit(folder)
    fs, inner = fsspec.core.url_to_fs(folder.rstrip("/"), **root.options_for(folder))
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


def read_rows(root: Root, shard: Shard) -> ShardRows:
    """Read every row that the files of `shard` describe, in their order, and the numbers of the rows that are lost."""
    table, counted = _read_parquet(root, shard), _read_count(root, shard)
    if table is None or counted is None or len(table) < counted:
        known = set(table["key"].to_pylist()) if table is not None else set[str]()
        undescribed = _read_tar(root, shard, known)
        table = undescribed if table is None else pa.concat_tables([table, undescribed])
    keys = table["key"].to_pylist()
    return ShardRows(table=table, lost=tuple(_find_lost_rows(shard, keys, (counted or 0) - len(set(keys)))))


def _read_parquet(root: Root, shard: Shard) -> pa.Table | None:
    """Rows of the parquet file; None when it is missing, torn, or not img2dataset's."""
    try:
        table = root.read_parquet(shard.file(".parquet"))
    except (FileNotFoundError, UserError):
        return None
    names = {name.lower(): name for name in table.column_names}
    return _normalise(_fill_urls(root, shard, table, names), shard) if {"url", "key"} <= names.keys() else None


def _fill_urls(root: Root, shard: Shard, table: pa.Table, names: dict[str, str]) -> pa.Table:
    """`table` with the place of the picture in the tar instead of each missing URL."""
    urls = pc.fill_null(table[names["url"]].cast(pa.string()), "")
    missing = pc.equal(pc.utf8_trim_whitespace(urls), "")
    if not pc.any(missing).as_py():
        return table
    places = {
        key: _place_url(shard, picture)
        for key, files in list_members(root, shard).items()
        if (picture := find_picture(files))
    }
    known = pa.array([places.get(key) for key in table[names["key"]].to_pylist()], pa.string())
    column = table.column_names.index(names["url"])
    return table.set_column(column, names["url"], pc.if_else(missing, known, urls))


def _read_count(root: Root, shard: Shard) -> int | None:
    """The number of rows that img2dataset was given; None for a shard that it did not finish."""
    try:
        count = root.read_json(shard.file("_stats.json"))["count"]
    except (FileNotFoundError, UserError, KeyError, TypeError):
        return None
    return count if isinstance(count, int) else None


def _normalise(table: pa.Table, shard: Shard) -> pa.Table:
    """`table` with the columns of samples and img2dataset's own, normalised as every other source is."""
    lower = {name.lower() for name in table.column_names}
    if not lower & {"caption", "text"}:
        table = table.append_column("caption", pa.nulls(len(table), pa.string()))
    selected = column_expressions(FORMAT, table.schema, shard.path)
    columns = [f"{sql.replace('`', chr(34))} as {target}" for target, sql in selected.items()]
    columns += [
        f"try_cast({name if name in lower else 'null'} as {kind}) as {name}_"
        for name, kind in _IMG2DATASET_COLUMNS.items()
    ]
    with duckdb.connect() as connection:
        connection.register("rows_of_shard", table)
        inner = f"select {', '.join(columns)} from rows_of_shard"
        named = ", ".join(f"{name}_ as {name}" for name in _IMG2DATASET_COLUMNS)
        samples = ", ".join(name for name in schema.SAMPLES.names if name not in ("uid", "source", "domain"))
        sql = f"select {schema.UID_SQL} as uid, {samples}, {named} from ({inner})"
        return connection.sql(sql).to_arrow_table()


def _read_tar(root: Root, shard: Shard, known: set[str]) -> pa.Table:
    """Rows of the pictures in the tar whose keys are not `known`, described by their JSON and text members.

    A key should have one picture; each further picture repeats the same row.
    """
    records = []
    for key, files in list_members(root, shard).items():
        pictures = _pictures(files)
        if key in known or not pictures:
            continue
        record = _read_record(root, shard, files)
        record["url"] = record.get("url") or _place_url(shard, pictures[0])
        records += [record | {"key": key, "status": "success"}] * len(pictures)
    columns = sorted({name for record in records for name in record} | {"url", "caption", "key", "status"})
    fields = pa.schema([(name, pa.string()) for name in columns])
    return _normalise(pa.Table.from_pylist(records, fields), shard)


def _place_url(shard: Shard, picture: Member) -> str:
    """The URL of a picture in its tar; it identifies a picture whose own URL is not known."""
    return f"{shard.path if '://' in shard.path else f'file://{shard.path}'}#{picture.name}"


def _read_record(root: Root, shard: Shard, files: dict[str, Member]) -> dict[str, str | None]:
    """The values of the JSON member as text; the caption comes from the text member where JSON has none."""
    texts = {kind: root.read_bytes(shard.path, files[kind].offset, files[kind].size) for kind in TEXTS if kind in files}
    try:
        loaded = parse_json(texts.get("json", b"{}"))
    except ValueError:
        loaded = None
    values: dict[str, Any] = {str(k).lower(): v for k, v in loaded.items()} if isinstance(loaded, dict) else {}
    # img2dataset writes an empty text for a caption that is null.
    caption = values.get("caption", values.get("text", texts.get("txt", b"").decode("utf-8", "replace") or None))
    plain = {name: str(value) for name, value in values.items() if isinstance(value, str | int | float)}
    return plain | {"caption": None if caption is None else str(caption)}


def list_members(root: Root, shard: Shard) -> dict[str, dict[str, Member]]:
    """Whole members of the tar by key and extension: of a torn tar those before the damage, of no tar none."""
    by_key: dict[str, dict[str, Member]] = {}
    end = root.size(shard.path)
    for member in _iterate_until_torn(index(root, shard.path)):
        if member.offset + member.size > end:
            continue
        folder, _, name = member.name.removeprefix("./").rpartition("/")
        key, _, extension = name.partition(".")
        by_key.setdefault(f"{folder}/{key}" if folder else key, {}).setdefault(extension.lower(), member)
    return by_key


def _iterate_until_torn(listed: Iterable[Member]) -> Iterator[Member]:
    try:
        yield from listed
    except UserError:
        return


def find_picture(files: dict[str, Member]) -> Member | None:
    """The picture among the members of one key."""
    return next(iter(_pictures(files)), None)


def _pictures(files: dict[str, Member]) -> list[Member]:
    """Pictures of one key, those with a plain extension first.

    webdataset ends a key at the first dot of a name, and takes the kind of a member from what follows the last dot.
    """
    ends = {extension: extension.rpartition(".")[2] for extension in files}
    chosen = sorted((e for e in files if ends[e] in PICTURES), key=lambda e: (e != ends[e], PICTURES.index(ends[e]), e))
    return [files[extension] for extension in chosen]


def _find_lost_rows(shard: Shard, keys: list[str | None], number: int) -> list[int]:
    """Numbers of `number` rows that no key names. A key is the shard's number followed by the row's number."""
    if number <= 0:
        return []
    ends = (str(key or "").removeprefix(shard.name) for key in keys)
    taken = {int(end) for end in ends if end.isdigit()}
    free = (row for row in range(len(keys) + number) if row not in taken)
    return [row for row, _ in zip(free, range(number), strict=False)]
