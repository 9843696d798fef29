"""One tar of a folder: the rows that its files describe, and the rows that only img2dataset's statistics count.

The shard's parquet file describes rows, and so do the tar's own members: what the parquet file does not name, because
it is torn, missing or lacks rows, the tar does. Every sample of the tar is a row, or refused with its reason.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from curation.adopt.columns import choose, combine, normalise
from curation.adopt.rows import SUCCESS, InputRows, add_origins, add_places
from curation.adopt.shard import Shard, is_file
from curation.adopt.tar_samples import TarSample, read_content, read_record, sniff_pictures
from curation.schema import RejectReason
from curation.shards import Member
from curation.storage import Root

MAX_COUNT = 1_000_000
"""The most rows that statistics are believed to count; img2dataset's shards have 10,000."""
MAX_STATISTICS_BYTES = 64 << 20


def read_rows(root: Root, shard: Shard) -> InputRows:
    """Read every row that the files of `shard` describe, in their order, and the numbers of the rows that are lost.

    Raises UserError when its tar cannot be read at all, or its parquet file not as it is; OSError as the file system.
    """
    content = read_content(root, shard.path)
    described, parquet_note = _read_parquet(root, shard)
    count, count_note = _read_count(root, shard)
    with root.open(shard.path) as f:
        table = _join(f, shard, content.samples, described)
    keys = table["key"].to_pylist()
    return InputRows(
        table=add_origins(table, [shard.file_name] * len(table), range(len(table))),
        num_members=content.num_members,
        lost=tuple(_find_lost_rows(shard, keys, (count or 0) - len(set(keys)))),
        notes=tuple(note for note in (content.damage, parquet_note, count_note) if note),
    )


@dataclass(frozen=True, kw_only=True)
class _Described:
    """The columns that are wanted of a parquet file, under its own names, and which is which."""

    columns: dict[str, pa.Array]
    chosen: dict[str, tuple[str, ...]]

    def list_keys(self) -> list[str | None]:
        keys: list[str | None] = self.columns[self.chosen["key"][0]].cast(pa.string()).to_pylist()
        return keys


def _read_parquet(root: Root, shard: Shard) -> tuple[_Described | None, str | None]:
    """The rows of the parquet file, and a note; None when it is missing, torn, or not img2dataset's."""
    path = shard.beside(".parquet")
    if not is_file(root, path):
        return None, None
    try:
        with root.open(path) as f:
            file = pq.ParquetFile(f, page_checksum_verification=True)
            if not {"url", "key"} <= {name.lower() for name in file.schema_arrow.names}:
                return None, f"{path} has no columns url and key: it is left aside, and the tar speaks for itself."
            chosen = choose(file.schema_arrow, path)
            wanted = list(dict.fromkeys(name for names in chosen.values() for name in names))
            table = file.read(columns=wanted)
    except (pa.ArrowException, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        return None, f"{path} cannot be read ({said}): the tar speaks for itself, its failures are lost."
    return _Described(columns={name: combine(table[name]) for name in wanted}, chosen=chosen), None


def _join(f: BinaryIO, shard: Shard, samples: list[TarSample], described: _Described | None) -> pa.Table:
    """The rows of the parquet file with the places of their pictures, then those that the tar alone has."""
    waiting: dict[str | None, deque[TarSample]] = {}
    for sample in samples:
        waiting.setdefault(sample.key, deque()).append(sample)
    tables = []
    if described is not None:
        taken = [waiting[key].popleft() if waiting.get(key) else None for key in described.list_keys()]
        pictures = [next(iter(sniff_pictures(f, one.files)), None) if one else None for one in taken]
        tables.append(_make_table(shard, described.columns, described.chosen, pictures, [None] * len(pictures)))
    left = {id(sample) for queue in waiting.values() for sample in queue}
    tables.append(_describe_samples(f, shard, [sample for sample in samples if id(sample) in left]))
    return pa.concat_tables(tables, promote_options="default")  # one may have more captions


def _describe_samples(f: BinaryIO, shard: Shard, samples: list[TarSample]) -> pa.Table:
    """Rows of samples of the tar. A sample should have one picture; each further picture repeats the same row."""
    records, places, refused = list[dict[str, str | None]](), list[Member | None](), list[str | None]()
    for sample in samples:
        pictures = sniff_pictures(f, sample.files)
        record = read_record(f, sample.files, pictures[0] if pictures else None)
        reason = None if pictures else RejectReason.NO_PICTURE.value
        reason = reason if record.is_text or reason else RejectReason.NOT_TEXT.value
        for _ in range(max(1, len(pictures))):
            records.append({**record.values, "key": sample.key, "status": SUCCESS})
            places.append(pictures[0] if pictures else None)
            refused.append(reason)
    names = sorted({name for record in records for name in record} | {"url", "caption", "key", "status"})
    chosen = choose(pa.schema([(name, pa.string()) for name in names]), shard.path)
    wanted = {name for chosen_names in chosen.values() for name in chosen_names}
    columns = {name: pa.array([record.get(name) for record in records], pa.string()) for name in sorted(wanted)}
    return _make_table(shard, columns, chosen, places, refused)


def _make_table(
    shard: Shard,
    columns: dict[str, pa.Array],
    chosen: dict[str, tuple[str, ...]],
    pictures: list[Member | None],
    refused: list[str | None],
) -> pa.Table:
    """The rows in the columns of `InputRows.table`; one without URL is identified by the place of its picture."""
    urls = [place_url(shard, picture) if picture else None for picture in pictures]
    places = [
        (shard.path, picture.offset, picture.size) if picture else (shard.path, None, None) for picture in pictures
    ]
    return add_places(normalise(columns, chosen, urls, refused), places)


def place_url(shard: Shard, picture: Member) -> str:
    """The URL of a picture in its tar; it identifies a picture whose own URL is not known."""
    return f"{shard.path if '://' in shard.path else f'file://{shard.path}'}#{picture.name}"


def _read_count(root: Root, shard: Shard) -> tuple[int | None, str | None]:
    """The number of rows that img2dataset was given, and a note; None for a shard that it did not finish."""
    path = shard.beside("_stats.json")
    if not is_file(root, path):
        return None, None
    try:
        count = json.loads(root.read_bytes(path, 0, MAX_STATISTICS_BYTES))["count"]
    except (ValueError, KeyError, TypeError, RecursionError, OSError):
        return None, f"{path} cannot be read: rows that no other file names are not counted."
    if type(count) is not int or not 0 <= count <= MAX_COUNT:
        return None, f"{path} counts {str(count)[:30]} rows, which no shard has: it is not believed."
    return count, None


def _find_lost_rows(shard: Shard, keys: list[str | None], number: int) -> list[int]:
    """Numbers of `number` rows that no key names. A key is the shard's number followed by the row's number."""
    if number <= 0:
        return []
    ends = (str(key or "").removeprefix(shard.name) for key in keys)
    taken = {int(end) for end in ends if end.isdecimal() and len(end) < 20}
    free = (row for row in range(len(keys) + number) if row not in taken)
    return [row for row, _ in zip(free, range(number), strict=False)]
