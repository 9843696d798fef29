"""Scores of one's own, `[scores.NAME]`: parquet files of uid or url and columns become a table as a filter's is.

`curate score` joins them with the pictures that came and checks how many it covers before anything is written; the
columns are then columns of the manifest, for rules, queries and the trainer. DuckDB joins, out of core: what it does
not hold in memory lies in a folder on the disk of the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from curation.progress import track
from curation.recipe.select_config import SelectConfig
from curation.scratch import open_folder
from curation.selection.rows import read_ahead
from curation.selection.streams import Streams, open_connection
from curation.storage import Root
from curation.unit_streams import by_unit
from jobs.scoring.joined_columns import JoinedScores, list_groups
from jobs.scoring.joined_rows import (
    KEYS,
    PICTURES,
    describe_covered,
    describe_known,
    find_units,
    publish_empty,
    publish_unit,
    read_group,
    read_keys,
    read_pictures,
    refuse_key,
    score_schema,
)


def join_scores(root: Root, item: JoinedScores, limits: SelectConfig) -> str:
    """Publish the table of `item` for every downloaded unit that lacks it; what is said of it, empty without work.

    Raises UserError before anything is written: another content than the table was begun with, a key that stands twice
    with different scores, no key that the root knows, or fewer pictures covered than `min_coverage`.
    """
    units = find_units(root, item)
    if not units:
        return ""
    described = item.describe()
    with open_folder(root, "score") as folder, open_connection(limits, folder) as connection:
        # A stream has no known number of rows, and must not be what a join keeps in memory.
        connection.execute("set disabled_optimizers = 'join_order,build_side_probe_side'")
        connection.execute("set preserve_insertion_order = false")
        connection.execute("set lock_configuration = true")
        joining = _Joining(root, item, units, Streams(connection))
        joining.read_scores()
        said = joining.compare_keys() + joining.join()
        root.begin_stage(item.table, described)
        joining.write_units()
    return said


class _Joining:
    """One join. Its tables in DuckDB are `scores`, which has each key once, and `joined`, which has each picture."""

    def __init__(self, root: Root, item: JoinedScores, units: Sequence[str], streams: Streams) -> None:
        self._root, self._item, self._units, self._streams = root, item, units, streams
        self._num_readers = root.count_readers(streams.num_threads)
        self._step = f"score, {item.name}"
        self._columns = score_schema(item).names[1:]

    def read_scores(self) -> None:
        """Make `scores` of the files. Raises UserError for a key with different scores."""
        groups, item = list_groups(self._item), self._item
        found = read_ahead(lambda place: read_group(item, place), groups, self._num_readers)
        shown = track(found, len(groups), f"{self._step}, read", "row group")
        self._streams.register("listed", score_schema(item), shown)
        self._streams.execute("create temp table scores as select distinct * from listed")
        repeated = "select key, count(*) as n from scores group by key having n > 1 order by key limit 1"
        for key, number in self._query(repeated):
            raise refuse_key(item, key, number)

    def compare_keys(self) -> str:
        """How many scores are of no sample. Raises UserError when all are."""
        root, item, units = self._root, self._item, self._root.units("samples")
        found = read_ahead(lambda unit: read_keys(root, unit, item), units, self._num_readers)
        self._streams.register("samples", KEYS, track(found, len(units), f"{self._step}, compared", "unit"))
        known = "select count(*) from (select distinct key from samples semi join scores using (key))"
        ((num_known,),) = self._query(known)
        ((num_scores, example),) = self._query("select count(*), min(key) from scores")
        return describe_known(item, num_scores, num_known, None if num_known else example)

    def join(self) -> str:
        """Make `joined`; how many pictures have scores. Raises UserError when they are too few."""
        root, item, units = self._root, self._item, self._units

        def read(numbered: tuple[int, str]) -> pa.Table:
            return read_pictures(root, numbered[1], numbered[0], item)

        found = read_ahead(read, list(enumerate(units)), self._num_readers)
        self._streams.register("pictures", PICTURES, track(found, len(units), f"{self._step}, joined", "unit"))
        names = ", ".join(["unit", "uid", "scores.key is not null as found", *self._columns])
        self._streams.execute(f"create temp table joined as select {names} from pictures left join scores using (key)")
        ((num_pictures, num_found),) = self._query("select count(*), count(*) filter (found) from joined")
        return describe_covered(item, num_found, num_pictures)

    def write_units(self) -> None:
        """Publish the table of each unit."""
        names = ", ".join(["unit", "uid", *self._columns])
        rows = by_unit(self._streams.query(f"select {names} from joined order by unit, uid"))

        def write(unit_rows: tuple[int, pa.Table]) -> int:
            publish_unit(self._root, self._units[unit_rows[0]], self._item, unit_rows[1])
            return unit_rows[0]

        writing = read_ahead(write, rows, self._num_readers)
        came = set(track(writing, len(self._units), f"{self._step}, written", "unit"))
        publish_empty(self._root, [unit for number, unit in enumerate(self._units) if number not in came], self._item)

    def _query(self, sql: str) -> Iterator[tuple[Any, ...]]:
        for batch in self._streams.query(sql):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
