"""The steps of an ingest, with an engine that says what a broken one would say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.ingest import flow
from curation.ingest.engine import DomainCounts, UnitCounts, UnitWork
from curation.ingest.unit import REASONS
from curation.metadata.inputs import Input
from curation.recipe.config import Recipe, load_recipe
from curation.storage import Root
from tests.support.ingest_sets import write_sets


class FakeRows:
    """Rows of which `lost` are missing: from the count of the first file, or from what was written."""

    def __init__(self, items: Sequence[Input], *, unread: int, unwritten: int) -> None:
        self._counts = {number: item.num_rows or 5 for number, item in enumerate(items)}
        self._unread, self._unwritten = unread, unwritten
        self.work: UnitWork | None = None

    def count_by_file(self) -> Mapping[int, int]:
        return {**self._counts, 0: self._counts[0] - self._unread}

    def count_domains(self, least: int) -> DomainCounts:
        return DomainCounts(num_rows=sum(self._counts.values()), placed={"h.example": 50}, largest=["h.example", "a"])

    def write_units(self, work: UnitWork) -> list[UnitCounts]:
        self.work = work
        num_rows = sum(self._counts.values()) - self._unwritten
        described = {"num_others": 3, "hosts": '{"h.example": 2}', **dict.fromkeys(map(str, REASONS), 0)}
        return [{"unit": 4, "samples": num_rows, **described}]


class FakeEngine:
    def __init__(self, *, unread: int = 0, unwritten: int = 0) -> None:
        self._unread, self._unwritten = unread, unwritten
        self.rows: FakeRows | None = None

    @contextmanager
    def open_rows(self, items: Sequence[Input]) -> Iterator[FakeRows]:
        self.rows = FakeRows(items, unread=self._unread, unwritten=self._unwritten)
        yield self.rows


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(write_sets(tmp_path / "meta"))


def test_a_file_that_gives_fewer_rows_than_it_has_is_refused_before_there_is_a_root(
    recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"part 0\.parquet has 76 rows and 75 were read: nothing was ingested"):
        flow.ingest(FakeEngine(unread=1), recipe, Root(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_rows_that_became_nothing_leave_no_plan(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows were read and .* became samples or rejects: nothing of it counts"):
        flow.ingest(FakeEngine(unwritten=1), recipe, Root(tmp_path / "root"))
    assert Root(tmp_path / "root").list("plans", ".json") == []


def test_the_plan_says_what_was_written_and_a_unit_knows_where_domains_lie(recipe: Recipe, tmp_path: Path) -> None:
    engine, root = FakeEngine(), Root(tmp_path / "root")
    flow.ingest(engine, recipe, root)
    (plan,) = [root.read_json(f"plans/{name}") for name in root.list("plans", ".json")]
    assert engine.rows is not None and engine.rows.work is not None
    work = engine.rows.work
    assert work.spread.large.keys() == {"h.example"} and work.target.named == {"h.example", "a"}
    assert (plan["batch"], plan["number"], list(plan["units"])) == (work.target.batch, 0, ["000004"])
    assert plan["hosts"]["num_domains"] == 4 and plan["hosts"]["largest"] == {"h.example": 2}
    assert plan["large_domains"] == {"h.example": {"first_unit": work.spread.num_shared, "num_units": 3}}
    assert plan["totals"].keys() == {"samples", "no_url", "where", "repeated"}, "others are named where they occur"
