r"""Regular expressions of rules: the same in DuckDB, in Spark and in DuckDB's own function, or refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from curation.recipe.patterns import match_sql
from curation.recipe.sql import ExpressionError, string_sql

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONNECTION = duckdb.connect()
LETTERS = "ab1_ -é一🐱\n\t.$^\\\\[](){}*+?|'&~#x"
characters = st.sampled_from(
    [*"abx1_ é一🐱'&~#-", r"\.", r"\$", r"\^", r"\\", r"\[", r"\(", r"\|", r"\n", r"\t", r"\-", r"\'"]
)
members = st.sampled_from([*"ab1é一&~", "a-x", "0-9", r"\d", r"\w", r"\s", r"\]", r"\^", r"\\", r"\-"])
classes = st.tuples(st.sampled_from(["", "^"]), st.lists(members, min_size=1, max_size=3)).map(
    lambda c: f"[{c[0]}{''.join(c[1])}]"
)
atoms = st.one_of(characters, classes, st.sampled_from([".", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S"]))
repeated = st.tuples(atoms, st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,}", "{0,2}"])).map("".join)


def _sequence(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.tuples(st.sampled_from(["(", "(?:"]), inner, st.sampled_from([")", ")", ")?"])).map("".join)
    part = st.one_of(repeated, repeated, group, st.sampled_from(["^", "$"]))
    sequence = st.lists(part, max_size=3).map("".join)
    return st.lists(sequence, min_size=1, max_size=2).map("|".join)


patterns = st.recursive(st.lists(repeated, min_size=1, max_size=3).map("".join), _sequence, max_leaves=4)
texts = st.lists(st.one_of(st.text(LETTERS, max_size=8), st.text(max_size=5)), min_size=1, max_size=8)


def _ask(sql: str, values: list[str | None]) -> list[bool | None]:
    CONNECTION.register("m", pa.table({"t": pa.array(values, pa.string()), "n": range(len(values))}))
    return [row[0] for row in CONNECTION.sql(f"select {sql} from m order by n").fetchall()]


def _translate(pattern: str) -> str | None:
    """The SQL of a pattern; None for one of too many repetitions."""
    try:
        return match_sql("m.t", pattern)
    except ExpressionError as error:
        assert "more than 4 of" in str(error)
        return None


@given(patterns, texts)
def test_a_pattern_means_what_duckdb_means(pattern: str, values: list[str]) -> None:
    sql = _translate(pattern)
    if sql is not None:
        assert _ask(sql, [*values, None]) == _ask(f"regexp_matches(t, {string_sql(pattern)})", [*values, None])


@settings(max_examples=5, phases=[Phase.generate])
@given(st.lists(patterns, min_size=20, max_size=40), st.lists(texts, min_size=20))
def test_patterns_mean_the_same_in_spark(spark: SparkSession, chosen: list[str], values: list[list[str]]) -> None:
    known = [*(text.replace("\0", "") for some in values for text in some), None]
    translated = [(pattern, sql) for pattern in chosen if (sql := _translate(pattern)) is not None]
    rows = pa.table({"t": pa.array(known, pa.string()), "n": range(len(known))})
    spark.createDataFrame(rows).createOrReplaceTempView("m")
    selected = ", ".join(f"{sql} as p{number}" for number, (_, sql) in enumerate(translated))
    in_spark = spark.sql(f"select n, {selected} from m").toArrow().sort_by("n")
    for number, (pattern, sql) in enumerate(translated):
        assert in_spark[f"p{number}"].to_pylist() == _ask(sql, known), pattern


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"a\bc", r"\b means other things"),
        (r"\p{L}", "means other things"),
        (r"(a)\1", "means other things"),
        ("(?i)a", "is not among them"),
        ("(?=a)", "is not among them"),
        ("(a|b)*", "a group may be followed by"),
        ("a**", "follows another repetition"),
        ("a+?", "follows another repetition"),
        ("*a", "nothing is to repeat"),
        ("a{2,1}", "repeats wrongly"),
        ("a{300}", "more than 255 times"),
        ("a{", "nothing is to repeat"),
        ("[a", "it ends too early"),
        ("[]", "a class is empty"),
        ("[[:alpha:]]", "holds another one"),
        ("[z-a]", "is no range"),
        (r"[a-\d]", "is no range"),
        ("(a", "never closed"),
        ("a)", "is unexpected"),
        ("a\\", "it ends too early"),
        ("a*b*c*d*e*", "more than 4 of"),
    ],
)
def test_what_the_engines_would_read_differently_or_slowly_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(words)):
        match_sql("m.t", pattern)
