"""Pages in the order of a column: the rows that all rows give, from the units that can have them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation import schema
from curation.browse import ordered
from curation.browse.conditions import parse_condition
from curation.browse.desk import Desk
from curation.browse.ordered import Bounds, find_bounds, read_best
from curation.manifest.manifest import Manifest
from curation.storage import Root

BATCH = "0a1b2c3d"
Values = Sequence[float | None]


def build(folder: Path, units: Sequence[Values]) -> Desk:
    """A root whose rows have the values `units` as aesthetic, and in scores_own as own and count."""
    root = Root(folder)
    root.create()
    for number, values in enumerate(units):
        unit = f"{BATCH}-{number:06d}"
        rows = []
        for place, value in enumerate(values):
            url = f"http://host.test/{number}-{place}.jpg"
            known = {"uid": schema.uid(url, None), "url": url, "aesthetic": value, "source": f"s{place % 2}"}
            rows.append({**dict.fromkeys(schema.SAMPLES.names), **known})
        rows.sort(key=lambda row: row["uid"])
        root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
        if number != 1:  # one unit is not scored
            own = [row["aesthetic"] for row in rows]
            counts = [None if value is None or math.isnan(value) else int(value) for value in own]
            columns = {"own": pa.array(own, pa.float32()), "count": pa.array(counts, pa.int32())}
            uids = pa.array([row["uid"] for row in rows])
            root.publish_parquet(f"scores_own/{unit}.parquet", pa.table({"uid": uids, **columns}))
    names = {f"{number:06d}": len(values) for number, values in enumerate(units)}
    root.publish_json(f"plans/{BATCH}.json", {"batch": BATCH, "number": 0, "inputs": [], "units": names})
    return Desk(Manifest(root))


def walk(desk: Desk, text: str, num_rows: int) -> Iterator[dict[str, Any]]:
    """The rows of all pages."""
    condition, start = parse_condition(text, desk.manifest.views()), None
    while True:
        found = read_best(desk, condition, start, num_rows).rows
        yield from found
        if len(found) < num_rows:
            return
        start = [found[-1]["v"], found[-1]["uid"]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The units of each question that is asked of some of them."""
    found: list[list[str]] = []
    query = Manifest.query_units

    def note(manifest: Manifest, sql: str, units: Sequence[str]) -> Any:
        found.append([unit.rpartition("-")[2] for unit in units])
        return query(manifest, sql, units)

    monkeypatch.setattr(Manifest, "query_units", note)
    return found


@pytest.mark.parametrize("column", ["aesthetic", "own", "count"])
@pytest.mark.parametrize("seed", range(3))
def test_pages_are_those_of_all_rows_with_nulls_nans_and_equal_values(
    column: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "MAX_UNITS", 2)
    rng = np.random.default_rng(seed)
    drawn = [rng.choice([1.5, 2.25, -3.0, 0.1, None], 4).tolist() + (rng.normal(size=3) * 2).tolist() for _ in range(5)]
    units = [*drawn, [None, None], [7.0]] + ([[math.nan, 1.0]] if seed == 1 else [])
    desk = build(tmp_path / "root", units)
    try:
        for direction, condition in (("desc", "true"), ("asc", "source = 's1'"), ("desc", "source = 's0'")):
            sql = f"select uid, {column} as v from manifest where {condition} and not isnan({column}::float)"
            wanted = desk.fetch(desk.manifest.query(f"{sql} order by v {direction}, uid"))
            for num_rows in (1, 4, 60):
                assert list(walk(desk, f"{condition} order by {column} {direction}", num_rows)) == wanted
    finally:
        desk.close()


def test_a_page_asks_the_units_that_can_have_its_rows(
    asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "MAX_UNITS", 1)
    desk = build(tmp_path / "root", [[1, 2, 3], [4, 5], [10, 11, 12], [8, 9], [None]])
    try:
        condition = parse_condition("true order by aesthetic desc", desk.manifest.views())
        first = read_best(desk, condition, None, 4).rows
        assert [row["v"] for row in first] == [12, 11, 10, 9] and asked == [["000002"], ["000003"]]
        asked.clear()
        second = read_best(desk, condition, [first[-1]["v"], first[-1]["uid"]], 2).rows
        assert [row["v"] for row in second] == [8, 5] and asked == [["000003"], ["000001"]]
        assert find_bounds(desk, "(AESTHETIC)") == {
            f"{BATCH}-00000{n}": Bounds(*ends) for n, ends in enumerate([(1, 3), (4, 5), (10, 12), (8, 9)])
        }
    finally:
        desk.close()


def test_what_is_no_column_of_numbers_asks_all_rows(asked: list[list[str]], tmp_path: Path) -> None:
    desk = build(tmp_path / "root", [[1, 2], [math.nan], [3, math.nan]])
    try:
        for order in ("url", "aesthetic + 1", "aesthetic", "kept"):
            assert find_bounds(desk, f"({order})") is None, order
        assert [row["v"] for row in walk(desk, "true order by aesthetic desc", 60)] == [3, 2, 1]
        forged = parse_condition("true order by own", desk.manifest.views())
        by_text, by_number = (read_best(desk, forged, [start, ""], 60) for start in ("2", 2.0))
        assert by_text.rows == by_number.rows and by_text.units is None and by_number.units and len(asked) == 1
    finally:
        desk.close()
