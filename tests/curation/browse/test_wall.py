"""Pages of the wall together are the rows of a condition, each once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from curation.browse import wall
from curation.browse.conditions import EVERYTHING, Condition, parse_condition
from curation.browse.desk import Desk
from curation.browse.wall import Row, find_rows, read_page
from curation.errors import UserError
from tests.curation.browse.conftest import SECONDS
from tests.support.small_root import SmallRoot


def walk(desk: Desk, text: str) -> Iterator[list[Row]]:
    """The pages of a condition."""
    condition, cursor = parse_condition(text, desk.manifest.views()), None
    while True:
        page = read_page(desk, condition, cursor, SECONDS)
        yield page.rows
        cursor = page.cursor
        if cursor is None:
            return


def list_uids(desk: Desk, text: str) -> list[str]:
    return [row["uid"] for rows in walk(desk, text) for row in rows]


@pytest.mark.parametrize("num_rows", [3, 7, 60])
def test_pages_of_any_length_give_every_row_once_in_the_order_of_units(
    desk: Desk, uids: list[str], num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall, "PAGE_ROWS", num_rows)
    assert list_uids(desk, "") == uids


@pytest.mark.parametrize("num_rows", [4, 60])
@pytest.mark.parametrize("order", ["aesthetic", "aesthetic desc", "domain desc", "width", "kept", "claimed_width"])
def test_pages_in_an_order_give_every_row_that_has_a_value_once(
    desk: Desk, made: SmallRoot, num_rows: int, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall, "PAGE_ROWS", num_rows)
    name = order.split()[0]
    known = desk.fetch(desk.manifest.query(f"select uid, {name} as v from manifest where {name} is not null"))
    signed = sorted(known, key=lambda row: row["uid"])
    signed.sort(key=lambda row: row["v"], reverse="desc" in order)
    assert list_uids(desk, f"true order by {order}") == [row["uid"] for row in signed]


def test_a_condition_over_all_rows_counts_all_rows_and_not_those_of_a_unit(desk: Desk, made: SmallRoot) -> None:
    (pair,) = desk.fetch(desk.manifest.query("select uid, kept_uid from duplicates"))
    assert list_uids(desk, "uid in (select duplicate_of from manifest)") == [pair["kept_uid"]]
    assert list_uids(desk, f"(select count(*) from manifest) = {len(made.units)} and uid = '{pair['uid']}'") == [
        pair["uid"]
    ]


def test_the_columns_of_a_condition_are_on_the_wall(desk: Desk) -> None:
    row = next(walk(desk, "Caption_Words = 3 and duplicate_of is null"))[0]
    assert row["caption_words"] == 3 and row["duplicate_of"] is None and "clip_similarity" not in row


def test_without_time_a_page_is_empty_and_goes_on_where_it_stopped(desk: Desk, uids: list[str]) -> None:
    page = read_page(desk, EVERYTHING, None, 0.0)
    assert page.rows == [] and page.num_units == 0 and page.cursor is not None
    assert [row["uid"] for row in read_page(desk, EVERYTHING, page.cursor, SECONDS).rows] == uids


@pytest.mark.parametrize("cursor", ["x", "{}", '["a"]', "[null, 1, 2]", '[[], "u"]'])
def test_a_place_that_no_wall_has_is_one_sentence(desk: Desk, cursor: str) -> None:
    for order in ("", "(width)"):
        with pytest.raises(UserError, match="a place that the wall does not have"):
            read_page(desk, Condition(sql="true", order=order), cursor, SECONDS)


@pytest.mark.parametrize("text", ["nothing > 3", "caption::int > 3", "count(*) > 1", "row_number() over () > 1"])
def test_what_duckdb_refuses_is_one_sentence(desk: Desk, text: str) -> None:
    with pytest.raises(UserError, match="DuckDB refuses the query"):
        list_uids(desk, text)


def test_rows_come_in_the_wanted_order_without_those_that_are_not_there(desk: Desk, uids: list[str]) -> None:
    wanted = [uids[5], "0" * 32, uids[2]]
    assert [row["uid"] for row in find_rows(desk, wanted)] == [uids[5], uids[2]]
    assert find_rows(desk, []) == []
