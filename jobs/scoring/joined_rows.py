"""The rows that a join of `[scores.NAME]` reads and writes, and what is said of it, as every engine has them.

The columns of the files are called by numbers on the way: their own names may be those of other columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.paths import open_file
from curation.schema import SAMPLES, Status
from curation.storage import Root
from curation.tables import downloads_file, samples_file, unit_file
from jobs.scoring.coverage import check_covered, check_known
from jobs.scoring.joined_columns import JoinedScores, RowGroup, said_as_sentence

KEY = pa.field("key", pa.string())
KEYS = pa.schema([KEY])
PICTURES = pa.schema([("unit", pa.int32()), SAMPLES.field("uid"), KEY])
"""Pictures that came: the place of their unit among the units that lack scores, and what they are joined by."""


def find_units(root: Root, item: JoinedScores) -> list[str]:
    """The downloaded units that have no table of `item` yet.

    Raises UserError when all have one that was made of other files than those of `item`; these are read for that.
    """
    done = set(root.units(item.table))
    units = [unit for unit in root.units("downloads") if unit not in done]
    if done and not units:
        root.check_stage(item.table, item.describe())
    return units


def score_schema(item: JoinedScores) -> pa.Schema:
    """The key and the columns of `item`, called c0, c1 and so on."""
    return pa.schema([KEY, *(field.with_name(f"c{number}") for number, field in enumerate(item.columns))])


def read_group(item: JoinedScores, place: RowGroup) -> pa.Table:
    """The rows of one row group that have a key, as `score_schema` says. Raises UserError for damage."""
    names = [item.key, *item.columns.names]
    with said_as_sentence(f"[scores.{item.name}]", place[0]), open_file(place[0]) as stream:
        table = pq.ParquetFile(stream, page_checksum_verification=True).read_row_group(place[1], columns=names)
    schema = score_schema(item)
    found = table.select(names).rename_columns(schema.names).cast(schema)
    found = found.filter(pc.is_valid(found[KEY.name]))
    for number, field in enumerate(schema):
        if pa.types.is_floating(field.type):
            found = found.set_column(number, field, _unite_equals(found[field.name]))
    return found


def _unite_equals(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """`values`, where numbers that compare as equal have the same bits: engines take either of two that do."""
    nan = pa.scalar(float("nan"), values.type)
    return pc.if_else(pc.is_nan(values), nan, pc.add(values, pa.scalar(0.0, values.type)))


def read_keys(root: Root, unit: str, item: JoinedScores) -> pa.Table:
    """The key of every sample of `unit`, whether its picture came or not, as KEYS."""
    return root.read_parquet(samples_file(unit), [item.key]).rename_columns(KEYS.names).cast(KEYS)


def read_pictures(root: Root, unit: str, number: int, item: JoinedScores) -> pa.Table:
    """The pictures of `unit` that came, as PICTURES; `number` is that of the unit."""
    downloads = root.read_parquet(downloads_file(unit), ["uid", "status"])
    rows = downloads.filter(pc.equal(downloads["status"], Status.OK.value)).select(["uid"])
    if item.key != "uid":
        rows = rows.join(root.read_parquet(samples_file(unit), ["uid", item.key]), "uid")
    numbers = pa.array([number] * len(rows), PICTURES.field("unit").type)
    return pa.table([numbers, rows["uid"], rows[item.key]], schema=PICTURES)


def publish_unit(root: Root, unit: str, item: JoinedScores, rows: pa.Table) -> None:
    """Publish the scores of `unit`; `rows` are sorted by uid and have the columns of `score_schema` after it.

    They are put together first: how they lie in batches would decide where pages end.
    """
    schema = pa.schema([SAMPLES.field("uid"), *item.columns])
    found = rows.select(["uid", *score_schema(item).names[1:]]).rename_columns(schema.names).cast(schema)
    root.publish_parquet(unit_file(item.table, unit), found.combine_chunks())


def publish_empty(root: Root, units: Sequence[str], item: JoinedScores) -> None:
    """Publish that no picture of `units` came."""
    empty = pa.schema([SAMPLES.field("uid"), *score_schema(item)]).empty_table()
    for unit in units:
        publish_unit(root, unit, item, empty)


def refuse_key(item: JoinedScores, key: str, count: int) -> UserError:
    """What is wrong with a key that has several scores."""
    return UserError(f"[scores.{item.name}] has {item.key} {key} with {count} different scores.")


def describe_known(item: JoinedScores, num_scores: int, num_known: int, example: str | None) -> str:
    """How many of the scores are of no sample, if any are. Raises UserError when all are; `example` is one of them."""
    num_unknown = num_scores - num_known
    check_known(item, num_scores, num_unknown, example)
    if not num_unknown:
        return ""
    return f"scores.{item.name} has {num_unknown:,} of {num_scores:,} {item.key}s that are of no sample of this root\n"


def describe_covered(item: JoinedScores, num_covered: int, num_pictures: int) -> str:
    """How many pictures have scores. Raises UserError when they are too few."""
    check_covered(item, num_covered, num_pictures)
    return f"scores.{item.name} covers {num_covered:,} of {num_pictures:,} pictures\n"
