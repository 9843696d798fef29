"""The rule language: DuckDB itself is the oracle on clean rows, Python for what DuckDB would do otherwise."""

from __future__ import annotations

import math
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from curation.recipe import rules
from curation.recipe.expressions import Quantile
from curation.recipe.sql import number_sql, string_sql

CONNECTION = duckdb.connect()
COLUMNS = rules.manifest_columns([pa.schema([("aspect_ratio", pa.float32()), ("flag", pa.bool_())])])
numbers = st.sampled_from(["width", "height", "num_bytes", "1", "2.5", "0", "7"])
words = st.sampled_from(["caption", "source", "'a'", "'b c'", "''", "'it''s'"])


def _arithmetic(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(" ".join)
    return st.one_of(binary, inner.map("({})".format), inner.map("- {}".format), inner.map("abs({})".format))


def _boolean(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(inner, st.sampled_from(["and", "or", "AND"]), inner).map(" ".join)
    return st.one_of(binary, inner.map("not {}".format), inner.map("({})".format))


sums = st.recursive(numbers, _arithmetic, max_leaves=4)
operators = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])
leaves = st.one_of(
    st.tuples(sums, operators, sums).map(" ".join),
    st.tuples(words, operators, words).map(" ".join),
    st.tuples(sums, sums, sums).map(lambda t: f"{t[0]} between {t[1]} and {t[2]}"),
    st.tuples(words, words, words).map(lambda t: f"{t[0]} not in ({t[1]}, {t[2]})"),
    words.map(lambda w: f"{w} like '%a%'"),
    words.map(lambda w: f"length({w}) is not null"),
    st.just("flag"),
)
conditions = st.recursive(leaves, _boolean, max_leaves=6)
CLEAN = pa.Table.from_pylist(
    [
        {"uid": str(n), "width": w, "height": h, "num_bytes": b, "caption": c, "source": s, "flag": f, "status": "ok"}
        for n, (w, h, b, c, s, f) in enumerate(
            [
                (1, 2, 7, "a", "a", True),
                (0, -3, 5, "", "b c", False),
                (7, 7, 49, "it's", "x", True),
                (2, 5, 0, "b", "", False),
            ]
        )
    ],
    pa.schema(
        [("uid", pa.string()), *((n, COLUMNS[n]) for n in ("width", "height", "num_bytes", "caption", "source"))]
        + [("flag", pa.bool_()), ("status", pa.string())]
    ),
)


def evaluate(sql: str, table: pa.Table) -> list[object]:
    CONNECTION.register("m", table)
    return [row[0] for row in CONNECTION.sql(f"select {sql} from m").fetchall()]


def passes(text: str, table: pa.Table) -> list[object]:
    columns = {field.name: field.type for field in table.schema}
    return evaluate(rules.passes_sql(rules.parse({"r": text}, columns)[0]), table)


@given(conditions)
def test_a_condition_means_what_duckdb_means_on_clean_rows(text: str) -> None:
    assert passes(text, CLEAN) == evaluate(f"coalesce({text}, false)", CLEAN)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-100, max_value=100), st.integers(0, 10**4))
def test_a_float32_column_beside_a_literal_compares_as_float32(value: float, literal: int) -> None:
    """`clip_similarity >= 0.26` is true of the float32 that is written 0.26, as in a query on the manifest."""
    table = pa.table({"score": pa.array([value, literal / 100], pa.float32())})
    for operator in ("=", "<=", ">="):
        text = f"score {operator} {literal / 100!r}"
        assert passes(text, table) == evaluate(f"score {operator} cast({literal / 100!r} as float)", table)
    assert passes(f"score = {literal / 100!r}", table)[1] is True


@given(st.text(max_size=30))
def test_string_literals_are_exact(text: str) -> None:
    if "\0" not in text:
        assert evaluate(string_sql(text), pa.table({"x": [1]})) == [text]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_literals_are_exact(value: float) -> None:
    assert evaluate(number_sql(value), pa.table({"x": [1]})) == [value]


@given(
    st.lists(st.one_of(st.none(), st.just(math.nan), st.floats(-1, 1, width=32)), min_size=1, max_size=40),
    st.integers(0, 100).map(lambda percent: percent / 100),
)
def test_quantile_is_the_smallest_value_that_covers_the_share(values: list[float | None], share: float) -> None:
    table = pa.table({"score": pa.array(values, pa.float32()), "status": ["ok"] * len(values)})
    lost = pa.table({"score": pa.array([99.0], pa.float32()), "status": ["timeout"]})
    CONNECTION.register("t", pa.concat_tables([table, lost]))
    (found,) = CONNECTION.sql(rules.quantile_sql("t", Quantile("score", share), {"score": pa.float32()})).fetchall()
    known = sorted(v for v in values if v is not None and not math.isnan(v))
    covering = [v for v in known if sum(w <= v for w in known) >= round(share * len(known), 9)]
    assert found[0] == (covering[0] if covering else None)


def test_the_first_rule_that_says_no_is_the_reason_and_a_lost_download_comes_before() -> None:
    parsed = rules.parse({"wide": "width > 2", "tall": "height > 2"}, COLUMNS)
    rows = pa.table(
        {
            "status": ["ok", "ok", "ok", "ok", "dns", None],
            "width": pa.array([3, 1, 3, 1, 3, 3], pa.int32()),
            "height": pa.array([3, 1, None, 3, 3, 3], pa.int32()),
        }
    )
    expected = [None, "wide", "tall", "wide", "download:dns", "download:missing"]
    assert evaluate(rules.reason_sql(parsed), rows) == expected
    assert evaluate(rules.reason_sql([]), rows) == [None] * 4 + ["download:dns", "download:missing"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("least(width, height) >= 200", [False, True]),
        ("greatest(width, height) >= 200", [False, True]),
        ("width / height <= 3", [False, True]),
        ("width % height >= 0", [False, True]),
        ("not (width / height > 3)", [False, True]),
        ("width / (height - 200) > 0", [False, False]),
        ("coalesce(height, 0) = 0", [True, False]),
        ("height is null or height = 200", [True, True]),
    ],
)
def test_what_is_unknown_never_passes(text: str, expected: list[bool]) -> None:
    table = pa.table({"width": pa.array([300, 400], pa.int32()), "height": pa.array([None, 200], pa.int32())})
    assert passes(text, table) == expected


def test_nan_is_null() -> None:
    table = pa.table({"score": pa.array([math.nan, 0.5, None, math.inf], pa.float32())})
    assert passes("score >= 0.3", table) == [False, True, False, True]
    assert passes("score is null", table) == [True, False, True, False]
    assert passes("not (score < 0.3)", table) == [False, True, False, True]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("aspct_ratio <= 3", "there is no column 'aspct_ratio' (did you mean aspect_ratio?)"),
        ("kept", "there is no column 'kept'"),
        ("width", "a boolean is needed where it has a number"),
        ("width and flag", "a boolean is needed where it has a number"),
        ("width = 'a'", "a number is compared with a string"),
        ("caption in ('a', 3)", "a string is compared with a number"),
        ("caption + 1 > 2", "a number is needed where it has a string"),
        ("length(width) > 1", "a string is needed where it has a number"),
        ("abs(1, 2) > 1", "abs takes 1 arguments, not 2"),
        ("least(width) > 1", "least takes 2 arguments, not 1"),
        ("coalesce(width, caption) = 1", "the arguments of coalesce do not go together"),
        ("caption like width", "like needs a pattern in quotes"),
        ("caption like 'a\\%'", "without a backslash"),
        ("count(*) over () < 3", "'over ( partition by' is missing"),
        ("count(*) < 3", "'over ( partition by' is missing"),
        ("row_number() over (partition by width) < 3", "'order by' is missing"),
        ("quantile(width, 2) > 1", "a share in [0, 1]"),
        ("quantile(caption, 0.5) > 1", "quantile takes a number column"),
        ("width >", "it ends too early"),
        ("", "it ends too early"),
        ("(width > 1", "')' is missing before the end"),
        ("width > 1 2", "'2' is unexpected there"),
        ("width > 1; drop table x", "';' is unexpected there"),
        ("width > 1 -- comment", "is unexpected there"),
        ("(select 1) > 0", "there is no column 'select'"),
        ("caption = 'open", "is never closed"),
        ('language = "en"', """"en" is in double quotes, which SQL keeps for names: write text as 'en', names bare"""),
        ('"width" > 1', "names bare"),
        ("regexp_like(caption, 'a')", "there is no function 'regexp_like'"),
        ("regexp_matches(caption, 'a\\b')", "means other things in DuckDB and in Spark"),
        ("caption in file('nowhere.txt')", "there is no file nowhere.txt"),
        ("caption in file(nowhere)", "the name of a file in single quotes is needed"),
        ("width in file('words.txt')", "there is no file words.txt"),
        ("quantile(width, 0.5) over (partition by height) > 1", "partitions by columns of text"),
    ],
)
def test_what_is_wrong_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        rules.parse({"r": text}, COLUMNS)
    message = str(caught.value)
    assert message.startswith(f"Rule r ({text.strip()!r}): ") and sentence in message and "\n" not in message


def test_a_thousand_parentheses_are_refused_and_not_a_crash() -> None:
    with pytest.raises(UserError, match="nested too deeply"):
        rules.parse({"r": "(" * 5000 + "width > 1" + ")" * 5000}, COLUMNS)


def test_names_of_rules_are_plain() -> None:
    with pytest.raises(UserError, match='Rule name "x\'y"'):
        rules.parse({"x'y": "width > 1"}, COLUMNS)


def test_needs_are_reported() -> None:
    texts = {
        "local": "WIDTH > 1 and caption is not null",
        "counted": "count(*) over (partition by source, phash) > 1",
        "ranked": "row_number() over (partition by domain order by width desc) = 1",
        "top": "clip_similarity >= quantile(clip_similarity, 0.7)",
    }
    local, counted, ranked, top = rules.parse(texts, COLUMNS)
    assert local.columns == {"width", "caption"} and not local.is_global
    assert counted.columns == {"source", "phash", "status"} and counted.is_global
    assert ranked.columns == {"domain", "width", "uid", "status"} and ranked.is_global
    assert top.quantiles == {Quantile("clip_similarity", 0.7)} and top.is_global


@pytest.mark.parametrize("name", ["pending", "kept", "Kept", "pictures", "packed", "ok"])
def test_a_rule_is_not_called_like_a_row_of_the_funnel(name: str) -> None:
    with pytest.raises(UserError, match=f"Rule name '{name}' is a word of the funnel .*: rename"):
        rules.parse({name: "width > 1"}, COLUMNS)


def test_a_list_is_read_beside_the_recipe_and_its_entries_are_known(tmp_path: Path) -> None:
    (tmp_path / "blocked.txt").write_text("\ufeff# hosts\nb.test\n\na.test  # a comment\nit's#1\nan\u2028entry\r\n")
    (rule,) = rules.parse(
        {"r": "caption not in file('blocked.txt')"}, COLUMNS, resolve=lambda name: str(tmp_path / name)
    )
    assert rule.lists == {"blocked.txt": ("a.test", "an\u2028entry", "b.test", "it's#1")}
    table = pa.table({"caption": ["a.test", "it's#1", "c.test", None]})
    assert evaluate(rules.passes_sql(rule), table) == [False, False, True, False]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"# nothing", "has no entry"), (b"\xff\xfe", "cannot be read as UTF-8"), (None, "there is no file")],
)
def test_a_list_that_says_nothing_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "l.txt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        rules.parse({"r": "caption in file('l.txt')"}, COLUMNS, resolve=lambda name: str(tmp_path / name))


def test_a_list_longer_than_sql_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("\n".join(map(str, range(60_000))))
    with pytest.raises(UserError, match=r"60,000 entries, rules take 50,000: join longer lists as \[scores"):
        rules.parse({"r": "caption in file('l.txt')"}, COLUMNS, resolve=lambda name: str(tmp_path / name))


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.one_of(st.none(), st.floats(0, 1, width=32))), min_size=1),
    st.integers(1, 100).map(lambda percent: percent / 100),
)
def test_a_quantile_by_source_is_that_of_each_source(rows: list[tuple[str | None, float | None]], share: float) -> None:
    names, values = [source for source, _ in rows], [value for _, value in rows]
    table = pa.table({"source": pa.array(names, pa.string()), "score": pa.array(values, pa.float32())})
    table = table.append_column("status", pa.array(["ok"] * len(rows)))
    types = {"source": pa.string(), "score": pa.float32()}
    wanted = Quantile("score", share, ("source",))
    CONNECTION.register("t", table)
    by_source = {
        (source,): value for source, value in CONNECTION.sql(rules.quantile_sql("t", wanted, types)).fetchall()
    }
    each = {}
    for source in dict.fromkeys(names):
        own = table.filter(pa.array([name == source for name in names]))
        CONNECTION.register("t", own)
        ((value,),) = CONNECTION.sql(rules.quantile_sql("t", Quantile("score", share), types)).fetchall()
        if value is not None:
            each[source,] = value
    assert by_source == each
    text = f"score >= quantile(score, {share}) over (partition by source)"
    (rule,) = rules.parse({"r": text}, types, {wanted: by_source})
    passed = [value is not None and value >= (each[source,] or 0) for source, value in rows]
    assert evaluate(rules.passes_sql(rule), table) == passed
