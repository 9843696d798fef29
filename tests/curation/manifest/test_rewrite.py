"""A rewritten query reads less than the full view and gives the same rows: compared with plain DuckDB."""

from __future__ import annotations

import re
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.manifest.manifest import Manifest
from curation.manifest.rewrite import Use, rewrite_query
from tests.support.small_root import SmallRoot
from tests.support.whole_root import QUERIES, rounded_rows


@pytest.mark.parametrize("sql", QUERIES)
def test_a_narrowed_query_gives_what_the_whole_view_gives(made: SmallRoot, sql: str) -> None:
    manifest = Manifest(made.root)
    whole = manifest.connection.sql(sql)
    found = manifest.query(sql)
    assert found.columns == whole.columns
    assert rounded_rows(found) == rounded_rows(whole)


COLUMNS = ("uid", "source", "aesthetic", "width", "num_words", '"odd name"', "duplicate_of", "kept", "train_size")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(COLUMNS), max_size=2, unique=True),
    st.sampled_from(["and", "or"]),
)
def test_any_columns_and_conditions(made: SmallRoot, columns: list[str], asked: list[str], joint: str) -> None:
    condition = f" {joint} ".join(f"m.{name} is not null" for name in asked) or "true"
    sql = f"select {', '.join(columns)} from manifest m where {condition} order by all"
    manifest = Manifest(made.root)
    assert manifest.query(sql).fetchall() == manifest.connection.sql(sql).fetchall()


def _scans(relation: Any) -> int:
    return len(re.findall(r"READ_PARQUET|PARQUET_SCAN", relation.explain()))


def test_only_tables_that_are_named_are_read(made: SmallRoot) -> None:
    manifest = Manifest(made.root)
    assert _scans(manifest.query("select source, avg(aesthetic) from manifest group by source")) == 1
    assert _scans(manifest.query("select source from manifest where kept")) == 2
    assert _scans(manifest.query("select * from manifest")) == 7
    assert _scans(manifest.query("select source, count(*) from manifest group by all order by all")) == 1
    assert _scans(manifest.query("select source from manifest order by columns('s.*')")) == 7


def _uses(sql: str, parameters: list[Any] | None = None) -> list[Use]:
    """What `rewrite_query` says that `sql` wants of the view `wide`."""
    uses: list[Use] = []
    with duckdb.connect() as parser:
        assert rewrite_query(parser, sql, parameters, frozenset({"wide"}), lambda use: uses.append(use)) is None
    return uses


@pytest.mark.parametrize(
    ("condition", "parameters", "uids"),
    [
        (f"uid = '{'a' * 32}'", None, ("a" * 32,)),
        (f"'{'a' * 32}' = w.uid and width > 3", None, ("a" * 32,)),
        (f"uid in ('{'a' * 32}', '{'b' * 32}')", None, ("a" * 32, "b" * 32)),
        ("width > 3 and (uid = ? and height > 2)", ["c" * 32], ("c" * 32,)),
        (f"uid = '{'a' * 32}' or width > 3", None, None),
        (f"not uid = '{'a' * 32}'", None, None),
        (f"uid <> '{'a' * 32}'", None, None),
        ("uid = 'short'", None, None),
        ("uid = lower('A')", None, None),
        (f"url = '{'a' * 32}'", None, None),
        (f"wide.uid = '{'a' * 32}'", None, None),
        (f"o.uid = '{'a' * 32}'", None, None),
        (f"w.uid.uid = '{'a' * 32}'", None, None),
    ],
)
def test_only_uids_that_every_row_must_have_are_found(
    condition: str, parameters: list[Any] | None, uids: tuple[str, ...] | None
) -> None:
    (use,) = _uses(f"select width, height, url from wide w where {condition}", parameters)
    assert use.uids == uids


@pytest.mark.parametrize(
    "sql",
    ["select * from wide", "select w from wide w", "select 1 from wide natural join other", "select wide from wide"],
)
def test_a_whole_row_needs_every_column(sql: str) -> None:
    assert [use.names for use in _uses(sql)] == [None]


def test_each_use_of_a_view_is_replaced_under_its_own_name() -> None:
    """Differential: the same rows from the view and from what stands in its place, in plain DuckDB."""
    with duckdb.connect() as connection:
        connection.execute(
            "create table base as select i as uid, i % 3 as a, i % 5 as b, i as unused from range(60) t(i)"
        )
        connection.execute("create view wide as select * from base")
        queries = [
            "select a, count(*) from wide group by a order by a",
            "select w.a, v.b from wide w join wide v using (uid) where v.b = 2 order by all",
            "with t as (select a, b from wide where a = 1) select sum(b) from t",
            'select "Odd".a from wide "Odd" where "Odd".b > 1 order by all',
        ]
        for sql in queries:
            narrow = rewrite_query(connection, sql, None, frozenset({"wide"}), lambda use: "select uid, a, b from base")
            assert narrow is not None and "base" in narrow, sql
            assert connection.sql(narrow).fetchall() == connection.sql(sql).fetchall(), sql


@pytest.mark.parametrize(
    "sql",
    [
        "with wide as (select 1 as a) select a from wide",
        "select a from wide tablesample reservoir(100 rows) repeatable (7) order by a",
        "select renamed from wide as w(uid, renamed) order by 1",
        "select #2 from wide",
        "select a from main.wide",
        "select a from other",
        "this is no SQL",
        "pivot wide on a using count(*)",
    ],
)
def test_what_is_not_certainly_the_view_is_not_rewritten(sql: str) -> None:
    with duckdb.connect() as parser:
        assert rewrite_query(parser, sql, None, frozenset({"wide"}), lambda use: "select 1 as a") is None
