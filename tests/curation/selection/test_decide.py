"""The selection by DuckDB: a kill loses nothing, damage is named, rows are joined and split by unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation.errors import UserError
from curation.recipe.select_config import SelectConfig
from curation.selection.decide import select, split_units, split_work
from curation.selection.engine import PLACE_BITS, Engine
from curation.selection.rows import join_unit, read_ahead
from curation.selection.rule_set import find_tables, read_rules
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot

RULES = {"safe": "punsafe <= 0.5", "rare": "count(*) over (partition by aesthetic) <= 3"}


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


def _select(root: Root, rules: dict[str, str], limits: SelectConfig | None = None) -> list[str]:
    """Select, and name the files of the selection."""
    parsed = read_rules(rules, {})
    select(root, parsed, find_tables(parsed, {}), limits or SelectConfig())
    return list((root.current("selection") or {})["files"])


@pytest.mark.parametrize("rules", [{"safe": RULES["safe"]}, RULES])
def test_an_interrupted_selection_ends_in_the_same_bytes(made: SmallRoot, rules: dict[str, str]) -> None:
    files = [Path(made.root.full(rel)) for rel in _select(made.root, rules)]
    before, stamp = [f.read_bytes() for f in files], files[1].stat().st_mtime_ns
    files[0].unlink()
    made.root.remove("selection/current.json")
    _select(made.root, rules)
    assert [f.read_bytes() for f in files] == before and files[1].stat().st_mtime_ns == stamp


def test_units_are_decided_in_parts_that_fit_into_memory_with_the_same_bytes(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {"safe": RULES["safe"], "first": "duplicate_of is null"}
    small_root.duplicates(made, dict([sorted(made.images)[:2]]))
    files = [Path(made.root.full(rel)) for rel in _select(made.root, rules)]
    before = [f.read_bytes() for f in files]
    for file in files:
        file.unlink()
    made.root.remove("selection/current.json")
    read, rows_sql = list[range | None](), Engine.rows_sql

    def spy(engine: Engine, *arguments: Any, **named: Any) -> str:
        read.append(named.get("units"))
        return rows_sql(engine, *arguments, **named)

    monkeypatch.setattr("curation.selection.decide.ORDERED_ROWS_PER_GB", 1)
    monkeypatch.setattr(Engine, "rows_sql", spy)
    _select(made.root, rules)
    assert read == [range(0, 1), range(1, 2)] and [f.read_bytes() for f in files] == before


def test_a_damaged_plan_hinders_no_selection(made: SmallRoot) -> None:
    for name in made.root.list("plans"):
        made.root.publish_json(f"plans/{name}", {})
    assert len(_select(made.root, {"safe": RULES["safe"]})) == len(UNITS)


def test_parts_are_runs_of_units_of_so_many_rows() -> None:
    assert split_work([3_000_000, 2_000_000, 1, 9_000_000, 4_000_000], 1.0) == [
        range(2),
        range(2, 3),
        range(3, 4),
        range(4, 5),
    ]
    assert split_work([], 1.0) == []


def test_the_same_rules_and_inputs_read_nothing(made: SmallRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    _select(made.root, RULES)
    monkeypatch.setattr("curation.selection.decide.open_engine", lambda *_: pytest.fail("it opened DuckDB"))
    _select(made.root, RULES)


def test_a_damaged_table_is_named_as_by_any_other_reader(made: SmallRoot) -> None:
    Path(made.root.full(f"downloads/{UNITS[1]}.parquet")).write_bytes(b"no parquet")
    with pytest.raises(UserError, match=rf"downloads/{UNITS[1]}.parquet is not a readable parquet file"):
        _select(made.root, RULES)
    assert made.root.current("selection") is None


def test_a_unit_is_joined_by_uid_whatever_the_order_of_its_tables(made: SmallRoot) -> None:
    root, unit = made.root, UNITS[0]
    tables = {"samples": ["source"], "downloads": ["status", "width"]}
    expected = join_unit(root, unit, tables)
    turned = root.read_parquet(f"downloads/{unit}.parquet").sort_by([("uid", "descending")])
    root.publish_parquet(f"downloads/{unit}.parquet", turned.slice(1))
    found = join_unit(root, unit, tables)
    assert found.slice(0, len(found) - 1) == expected.slice(0, len(found) - 1)
    assert expected["uid"].to_pylist() == sorted(u for u, name in made.units.items() if name == unit)
    assert found.slice(len(found) - 1).select(["status", "width"]).to_pylist() == [{"status": None, "width": None}]


def test_units_are_split_wherever_batches_end() -> None:
    places = [*range(5), *(3 << PLACE_BITS | row for row in range(4)), 7 << PLACE_BITS]
    reasons = [None, "a", "b", None, "c", "d", "e", None, "f", None]
    rows = pa.table({"place": places, "reason": pa.array(reasons, pa.string())})
    for size in (1, 2, 3, 10):
        found = [(unit, part.to_pylist()) for unit, part in split_units(rows.to_batches(size))]
        assert found == [(0, reasons[:5]), (3, reasons[5:9]), (7, reasons[9:])]


def test_reading_ahead_keeps_the_order_and_raises_where_it_stands() -> None:
    def read(number: int) -> int:
        if number == 20:
            raise UserError("twenty")
        return number * 2

    found = list[int]()
    with pytest.raises(UserError, match="twenty"):
        found.extend(read_ahead(read, range(50), 3))
    reader = read_ahead(read, range(20), 3)
    assert list(reader) == [number * 2 for number in range(20)]
