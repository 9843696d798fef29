"""A condition is checked before it is asked: what is more than one, or reads more than the views, is refused."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.browse.conditions import EVERYTHING, Condition, find_removed, find_words, parse_condition, without
from curation.errors import UserError
from curation.recipe.expressions import Quantile

VIEWS = ["manifest", "samples", "duplicates"]


def test_a_condition_comes_back_as_sql_that_stands_alone() -> None:
    found = parse_condition("where kept or width > 3 -- and a comment", VIEWS)
    assert found.sql == "((kept OR (width > 3)))"
    assert found.order == "" and found.names == ("kept", "width")


def test_order_by_is_taken_apart() -> None:
    found = parse_condition("kept order by aesthetic desc", VIEWS)
    assert (found.sql, found.order, found.is_descending) == ("(kept)", "(aesthetic)", True)
    assert found.names == ("kept", "aesthetic")
    assert parse_condition("ORDER BY width", VIEWS).sql == "(true)"


def test_a_subquery_keeps_its_own_where() -> None:
    for begin in ("", "where "):
        found = parse_condition(f"{begin}uid in (select uid from samples where width > 3)", VIEWS)
        assert "SELECT uid FROM samples WHERE (width > 3)" in found.sql


def test_nothing_is_every_row() -> None:
    assert parse_condition("  where ", VIEWS) == EVERYTHING


def test_subqueries_over_views_and_names_of_their_own_are_taken() -> None:
    parse_condition("uid in (select kept_uid from duplicates)", VIEWS)
    parse_condition("uid in (with x as (select uid from Samples) select uid from x)", VIEWS)
    parse_condition("width in (select * from range(3))", VIEWS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("drop table samples", "only reads, and DROP does not"),
        ("INSTALL httpfs", "only reads, and INSTALL does not"),
        ("attach 'x.db'", "only reads, and ATTACH does not"),
        ("copy samples to 'x.csv'", "only reads, and COPY does not"),
        ("set threads = 1", "only reads, and SET does not"),
        ("select * from manifest", "a whole query"),
        ("from 'x.parquet'", "a whole query"),
        ("kept; drop table samples", "no statement behind it"),
        ("kept union select uid from samples", "no UNION"),
        ("kept group by uid", "no UNION"),
        ("kept limit 3", "no UNION, GROUP BY or LIMIT"),
        ("kept order by width, height", "takes one expression"),
        ("uid in (select uid from read_parquet('/etc/passwd'))", "no files, so read_parquet"),
        ("exists (select * from read_text('/etc/passwd'))", "no files, so read_text"),
        ("exists (select * from glob('/**'))", "no files, so glob"),
        ("exists (select * from query('select 1'))", "no files, so query"),
        ("kept order by (select max(size) from glob('/*'))", "no files, so glob"),
        ("exists (from '/tmp/x.csv')", "no view '/tmp/x.csv'"),
        ("exists (from information_schema.tables)", "no view 'tables'"),
        ("kept and", "does not understand"),
        ("(" * 300, "does not understand"),
        ("(" * 5_000, "more than 500 brackets"),
        ("not " * 900 + "kept", "nested too deeply"),
    ],
)
def test_what_is_no_condition_on_the_views_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        parse_condition(text, VIEWS)
    assert "\n" not in str(error.value)


TYPES = {"width": pa.int32(), "aesthetic": pa.float32(), "caption": pa.string(), "status": pa.string()}


def test_a_rule_stands_for_the_pictures_that_it_removes() -> None:
    found = find_removed("width >= 200 and aesthetic > 5", TYPES, {})
    assert found.sql.startswith("status = 'ok' and not (") and " m." not in found.sql and "(m." not in found.sql
    assert found.names == ("aesthetic", "width")
    high = find_removed("aesthetic >= quantile(aesthetic, 0.5)", TYPES, {Quantile("aesthetic", 0.5): {(): 4.5}})
    assert "4.5" in high.sql


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("aesthetic >= quantile(aesthetic, 0.5)", "depends on other rows"),
        ("count(*) over (partition by caption) <= 10", "depends on other rows"),
        ("balance(caption, 10, 't')", "depends on other rows"),
        ("none > 3", "unknown column|no column"),
        ("drop table samples", "Rule rule"),
    ],
)
def test_what_is_no_rule_of_one_row_is_refused(rule: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_removed(rule, TYPES, {})


def test_rows_of_another_condition_are_taken_away_also_where_that_one_is_null() -> None:
    assert without(Condition(sql="a", order="(b)"), Condition(sql="(c)")) == Condition(
        sql="a and not coalesce((c), false)", order="(b)"
    )


def test_words_are_texts_and_no_sql() -> None:
    found = find_words("Truck o'clock%", ["caption", "caption_2"])
    assert found.sql == (
        "(contains(lower(caption), 'truck') or contains(lower(caption_2), 'truck')) and "
        "(contains(lower(caption), 'o''clock%') or contains(lower(caption_2), 'o''clock%'))"
    )
    assert find_words("  ", ["caption"]).sql == "true"
