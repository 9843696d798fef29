"""How far the files of `[scores.NAME]` and a root go together, found out before any stage begins, without Spark.

`curate score` finds it out again when the pictures have come. This look is for those who would wait
days for that: it is left out for roots or files of more than MAX_ROWS rows, which one machine would read for long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.metadata.inputs import Input, find_inputs
from curation.paths import open_file
from curation.plan import read_plans, select_new_inputs
from curation.private_folder import make_private_folder
from curation.recipe.config import Recipe
from curation.recipe.select_config import SelectConfig
from curation.schema import Status
from curation.selection.rows import join_unit, read_ahead
from curation.selection.streams import open_connection
from curation.storage import Root
from curation.terminal import write_error
from jobs.scoring.joined_columns import (
    JoinedScores,
    RowGroup,
    list_groups,
    measure_groups,
    plan_joined_scores,
    said_as_sentence,
)

MAX_ROWS = 20_000_000
NUM_READERS = 2
_SEEN = pa.schema([("key", pa.string()), ("came", pa.bool_())])
_COUNTS = """
with each as (
  select key, bool_or(listed) as listed, count(*) filter (not listed) as samples,
    count(*) filter (came) as pictures, count(*) filter (not listed and came is null) as awaited
  from seen group by key
)
select count(*) filter (listed), count(*) filter (listed and samples = 0), min(key) filter (listed),
  coalesce(sum(samples), 0), coalesce(sum(samples) filter (not listed), 0),
  coalesce(sum(pictures), 0), coalesce(sum(pictures) filter (listed), 0),
  coalesce(sum(awaited) filter (listed), 0)
from each
"""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Counts of one section `[scores.NAME]` against the samples of a root. A key is a uid or a URL."""

    num_keys: int
    num_unknown: int
    """Keys that no sample has."""
    example: str | None
    """The least key of the files."""
    num_samples: int
    num_lacking: int
    """Samples whose key is in no file."""
    num_pictures: int
    """Samples whose picture came and is not in the table of scores yet."""
    num_covered: int
    """Those of them whose key is in a file."""
    num_awaited: int
    """Samples whose key is in a file and that have not been downloaded yet."""

    @property
    def most_pictures(self) -> int:
        """The pictures that there would be if, of those that have not come yet, exactly the scored ones came."""
        return self.num_pictures + self.num_awaited

    @property
    def most_covered(self) -> int:
        """The scored ones of `most_pictures`: no outcome of the download covers a larger share."""
        return self.num_covered + self.num_awaited


def check_joined_scores(recipe: Recipe, root: Root) -> None:
    """Say what of each `[scores.NAME]` no sample has, and which samples it leaves out.

    Raises UserError where `curate score` would have to refuse the files, whatever is still downloaded, as it does those
    that differ from what a table was begun with. Where the recipe names metadata that is not ingested yet, nothing is
    refused for its keys: its rows may be what the scores are of.
    """
    units = root.units("samples")
    num_rows = sum(sum(plan["units"].values()) for plan in read_plans(root)) if recipe.scores else 0
    for item in plan_joined_scores(recipe):
        done = set(root.units(item.table))
        if num_rows + _count_rows(item) > MAX_ROWS:
            continue
        if done:
            root.check_stage(item.table, item.describe())
        if done.issuperset(units):
            continue
        found = measure_coverage(root, item, recipe.select)
        if not _resolve_new_inputs(recipe, root):
            check_known(item, found.num_keys, found.num_unknown, found.example)
            check_covered(item, found.most_covered, found.most_pictures)
        write_error(describe_coverage(item, found))


def measure_coverage(root: Root, item: JoinedScores, limits: SelectConfig) -> Coverage:
    """Compare the keys of the files with those of all samples of `root`, out of core."""
    with open_connection(limits, make_private_folder()) as connection:
        connection.execute("create temp table seen (key varchar, came boolean, listed boolean)")
        for part in _read_files(item):
            _insert(connection, part, listed=True)
        for part in _read_units(root, item):
            _insert(connection, part, listed=False)
        counts = connection.execute(_COUNTS).fetchall()[0]
    names = ("num_keys", "num_unknown", "example", "num_samples", "num_lacking", "num_pictures", "num_covered")
    return Coverage(**dict(zip((*names, "num_awaited"), counts, strict=True)))


def _insert(connection: duckdb.DuckDBPyConnection, part: pa.Table, *, listed: bool) -> None:
    connection.register("part", part)
    connection.execute(f"insert into seen select key, came, {listed} from part where key is not null")


def _count_rows(item: JoinedScores) -> int:
    return sum(rows for file in item.files for rows in measure_groups(item, file))


def _read_files(item: JoinedScores) -> Iterator[pa.Table]:
    def read(place: RowGroup) -> pa.Table:
        with said_as_sentence(f"[scores.{item.name}]", place[0]), open_file(place[0]) as stream:
            group = pq.ParquetFile(stream, page_checksum_verification=True).read_row_group(place[1], [item.key])
            keys = group[item.key].cast(pa.string())
        return pa.table([keys, pa.nulls(len(keys), pa.bool_())], schema=_SEEN)

    return read_ahead(read, list_groups(item), NUM_READERS)


def _read_units(root: Root, item: JoinedScores) -> Iterator[pa.Table]:
    """The key of every sample, and whether its picture came and waits for a score; null where nobody knows yet."""
    downloaded, done = set(root.units("downloads")), set(root.units(item.table))
    samples = {"samples": [] if item.key == "uid" else [item.key]}

    def read(unit: str) -> pa.Table:
        if unit in downloaded - done:
            rows = join_unit(root, unit, {**samples, "downloads": ["status"]})
            came = pc.fill_null(pc.equal(rows["status"], Status.OK.value), False)
            return pa.table([rows[item.key], came], schema=_SEEN)
        rows = join_unit(root, unit, samples)
        return pa.table([rows[item.key], pa.array([False if unit in done else None] * len(rows))], schema=_SEEN)

    return read_ahead(read, root.units("samples"), NUM_READERS)


def _resolve_new_inputs(recipe: Recipe, root: Root) -> Sequence[Input]:
    """The metadata that the recipe names and `root` does not hold yet."""
    try:
        return select_new_inputs(root, find_inputs(recipe)).fresh
    except UserError:  # of metadata that is gone, which `curate ingest` says when it is asked to
        return ()


def check_known(item: JoinedScores, num_keys: int, num_unknown: int, example: str | None) -> None:
    """Raise UserError when all of `num_keys` keys are unknown to the root; `example` is one of them."""
    if num_keys and num_unknown == num_keys:
        raise UserError(
            f"[scores.{item.name}]: none of its {num_keys:,} {item.key}s is that of a sample of this root, such as "
            f"{example}: they may be of another root, or other identifiers; uid is the md5 of URL, line feed, caption."
        )


def check_covered(item: JoinedScores, num_covered: int, num_pictures: int) -> None:
    """Raise UserError when fewer of `num_pictures` pictures have scores than `min_coverage` asks for."""
    share = num_covered / num_pictures if num_pictures else 1.0
    if share < item.config.min_coverage:
        raise UserError(
            f"[scores.{item.name}] covers {num_covered:,} of {num_pictures:,} pictures ({100 * share:.2f} %): score "
            f"the others too, or allow it by scores.{item.name}.min_coverage."
        )


def describe_coverage(item: JoinedScores, found: Coverage) -> str:
    """What of the files is of no sample, and how many samples they leave out; empty when both are none."""
    if not found.num_samples or not found.num_unknown + found.num_lacking:
        return ""
    unknown = f"{found.num_unknown:,} of its {found.num_keys:,} {item.key}s are of no sample of this root"
    lacking = f"{found.num_lacking:,} of {found.num_samples:,} samples have no row in it"
    return f"scores.{item.name}: {unknown}, and {lacking}\n"
