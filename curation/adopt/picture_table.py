"""Parquet files that hold pictures as bytes: a column of bytes, or Hugging Face's struct of bytes and path.

Bytes in a parquet file are packed and cannot be read by range, so these pictures alone are copied, into tars of the
root.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.adopt.captions import CAPTION
from curation.adopt.columns import choose, combine, normalise
from curation.adopt.pictures import (
    AS_IT_IS,
    MAX_PICTURE_BYTES,
    choose_rows,
    describe_failure,
    describe_picture,
    has_original,
    refuse_forgotten,
)
from curation.adopt.rows import SUCCESS, AdoptedRow, InputRows, add_origins, add_places
from curation.download.journal import Journal
from curation.download.publish import publish_unit
from curation.download.rows import failed_row
from curation.errors import UserError
from curation.images.decoder import MAX_IN_FLIGHT, Decoder
from curation.images.probe import PictureError
from curation.metadata.text_columns import is_text
from curation.schema import DownloadRow, SampleRow, Status
from curation.sources import is_list
from curation.storage import Root, fingerprint
from curation.tables import samples_file

IMAGE = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "image_bytes", "img_bytes", "bytes", "content")
"""Names of columns that hold pictures, the likeliest first."""
OF_IMG2DATASET = {"status", "error_message"}
"""Columns by which img2dataset says which rows it could not fetch."""
_STATUS, _NUMBER = "(status)", "(number)"
"""Names of columns that are added to those of a file."""


@dataclass(frozen=True, kw_only=True)
class PictureTable:
    """A parquet file with pictures. `columns` says which of its columns are `image`, `caption` and `url`."""

    source: str
    path: str
    num_bytes: int = 0
    file: str = ""
    """Its path in the folder that is adopted, by which rejects name it; empty when it lies directly in it."""
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        return self.file or self.path.rpartition("/")[2]

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.file_name, self.num_bytes])


def has_pictures(root: Root, path: str) -> bool:
    """Whether the parquet file at `path` has a column of bytes; also when it cannot be read, which is said later."""
    try:
        with _open_parquet(root, path) as file:
            return bool(_list_bytes(file.schema_arrow))
    except (UserError, OSError):
        return True


@contextlib.contextmanager
def _open_parquet(root: Root, path: str) -> Iterator[pq.ParquetFile]:
    """The parquet file at `path`. Raises UserError for one that is damaged, OSError as the file system does."""
    try:
        with root.open(path) as f:
            yield pq.ParquetFile(f)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # Arrow raises an OSError without a number for damaged bytes
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{path} is not a readable parquet file ({said}): copy it again.") from error


def _list_bytes(schema: pa.Schema) -> dict[str, str]:
    """The columns that may hold pictures, and where in each of them the bytes are."""
    found = {}
    for one in schema:
        dtype = one.type.storage_type if isinstance(one.type, pa.BaseExtensionType) else one.type
        if pa.types.is_struct(dtype):
            if any(part.name == "bytes" and _is_bytes(part.type) for part in dtype):
                found[one.name] = f"{one.name}.bytes"
        elif _is_bytes(dtype):
            found[one.name] = one.name
    return found


def _is_bytes(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype))


def choose_image(schema: pa.Schema, path: str, columns: Mapping[str, str]) -> str:
    """The column with the pictures. Raises UserError when there is none, or when it is not clear which it is."""
    known = _list_bytes(schema)
    if "image" in columns:
        if columns["image"] not in known:
            raise UserError(
                f"{path} has no column {columns['image']} of bytes, or of structs with bytes, which --columns names."
            )
        return columns["image"]
    named = [name for wanted in IMAGE for name in known if name.lower() == wanted]
    if not known and {"url", "key"} <= {name.lower() for name in schema.names}:
        raise UserError(f"{path} is there without {path.removesuffix('.parquet')}.tar, which holds its pictures.")
    if not known:
        raise UserError(
            f"{path} has no column of bytes, or of structs with bytes, that could be pictures: "
            f"`curate ingest` takes files of URLs and captions."
        )
    if not named and len(known) > 1:
        raise UserError(
            f"{path} has several columns of bytes ({', '.join(known)}): say which holds the pictures by "
            f"--columns image=NAME."
        )
    return (named or list(known))[0]


def _choose_texts(schema: pa.Schema, path: str, image: str, columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The file's own columns for those of samples and img2dataset's own; `url` and `caption` where it has any."""
    others = pa.schema([one for one in schema if one.name != image])
    for target in ("url", "caption"):
        if target in columns and columns[target] not in others.names:
            raise UserError(f"{path} has no column {columns[target]}, which --columns names.")
    has_url = any(name.lower() == "url" for name in others.names)
    chosen = choose(others if has_url else others.append(pa.field("url", pa.string())), path)
    if not has_url:
        chosen["url"] = ()
    if not chosen["caption"]:
        likely = (one.name for name in CAPTION for one in others if one.name.lower() == name and _is_caption(one.type))
        chosen["caption"] = tuple(likely)[:1]
    if not {name.lower() for name in others.names} >= OF_IMG2DATASET:
        chosen["status"] = chosen["error_message"] = ()
    return chosen | {target: (columns[target],) for target in ("url", "caption") if target in columns}


def _is_caption(dtype: pa.DataType) -> bool:
    return is_text(dtype) or (is_list(dtype) and is_text(dtype.value_type))


def read_rows(root: Root, item: PictureTable) -> InputRows:
    """Every row of the file; its place is its number. Raises UserError when the file cannot be read."""
    with _open_parquet(root, item.path) as file:
        image = choose_image(file.schema_arrow, item.path, item.columns)
        chosen = _choose_texts(file.schema_arrow, item.path, image, item.columns)
        wanted = list(dict.fromkeys(name for names in chosen.values() for name in names))
        number, read = file.metadata.num_rows, file.read(wanted)
    columns = {name: combine(read[name]) for name in wanted}
    if not chosen["status"]:
        columns[_STATUS], chosen["status"] = pa.array([SUCCESS] * number, pa.string()), (_STATUS,)
    if not chosen["key"]:
        columns[_NUMBER], chosen["key"] = pa.array(map(str, range(number)), pa.string()), (_NUMBER,)
        chosen["source_id"] = chosen["source_id"] or (_NUMBER,)
    url = item.path if "://" in item.path else f"file://{item.path}"
    table = normalise(columns, chosen, [f"{url}#{row}" for row in range(number)], [None] * number)
    table = add_places(table, [(item.path, row, None) for row in range(number)])
    table = add_origins(table, [item.file_name] * number, range(number))
    return InputRows(table=table, num_members=number)


def count_rows(root: Root, item: PictureTable) -> int:
    """The rows of the file. Raises UserError when it cannot be read."""
    with _open_parquet(root, item.path) as file:
        return int(file.metadata.num_rows)


def end_unit(root: Root, unit: str, item: PictureTable) -> None:
    """Copy the pictures of `unit` into a tar of the root and publish its downloads; a killed one goes on."""
    samples: list[SampleRow] = root.read_parquet(samples_file(unit), SampleRow.__annotations__).to_pylist()
    uids = {sample["uid"] for sample in samples}
    rows = choose_rows(row for row in read_rows(root, item).table.to_pylist() if row["uid"] in uids)
    with Journal(root.scratch() / f"{unit}-adopt.journal").open() as journal:
        asyncio.run(_measure_rows(root, item, [row for row in rows if row["uid"] not in journal.rows], journal))
        publish_unit(root, unit, samples, journal, fetch_round=None)
        journal.delete()


async def _measure_rows(root: Root, item: PictureTable, rows: list[AdoptedRow], journal: Journal) -> None:
    for row in rows:
        if row["status"] != SUCCESS:
            journal.add(describe_failure(row))
    waiting = {row["offset"]: row for row in rows if row["status"] == SUCCESS}
    decoder = Decoder(AS_IT_IS)
    try:
        for first, pictures in _read_pictures(root, item) if waiting else ():
            batch = [(waiting[number], data) for number, data in enumerate(pictures, first) if number in waiting]
            measured = await asyncio.gather(*(_describe(row, data, decoder) for row, data in batch))
            described = list(refuse_forgotten(root, measured))
            for (_, data), one in zip(batch, described, strict=True):
                journal.add(one, data or b"" if one["status"] == Status.OK else b"")
    finally:
        await decoder.close()


def _read_pictures(root: Root, item: PictureTable) -> Iterator[tuple[int, list[bytes | None]]]:
    """The bytes of some rows after each other with the number of the first of them; None where there are none."""
    with _open_parquet(root, item.path) as file:
        image = choose_image(file.schema_arrow, item.path, item.columns)
        first = 0
        for batch in file.iter_batches(MAX_IN_FLIGHT, columns=[_list_bytes(file.schema_arrow)[image]]):
            column = batch.column(0)
            values = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
            yield first, values.to_pylist()
            first += len(batch)


async def _describe(row: AdoptedRow, data: bytes | None, decoder: Decoder) -> DownloadRow:
    """The row of one picture, which is stored as it is."""
    if not data:
        return failed_row(row["uid"], Status.EMPTY, f"row {row['offset']} has no bytes of a picture")
    if len(data) > MAX_PICTURE_BYTES:
        return failed_row(row["uid"], Status.TOO_LARGE, f"{len(data):,} bytes")
    try:
        stored = await decoder.decode(data)
    except PictureError as error:
        return failed_row(row["uid"], error.status, error.detail)
    described = describe_picture(row, data, stored, is_original=has_original(row))
    described["size"] = len(data)
    return described
