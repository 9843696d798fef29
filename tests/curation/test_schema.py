"""Identity: the same uid in Python, DuckDB and Spark."""

from __future__ import annotations

import hashlib

import duckdb
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from curation.schema import DOWNLOADS, SAMPLES, UID_SQL, DownloadRow, SampleRow, uid

TEXT = st.one_of(st.none(), st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=20))
AWKWARD = [
    ("http://a/1", "a cat"),
    ("http://a/1", None),
    ("http://a/1", ""),
    (None, None),
    ("http://a/ä?x=1&y=2", "猫 \n🐈‍⬛ line"),
    ("a\n", "b"),
]


def test_known_value() -> None:
    assert uid("http://a/1", "a cat") == hashlib.md5(b"http://a/1\na cat").hexdigest()
    assert uid("http://a/1", None) == uid("http://a/1", "")


@given(TEXT, TEXT)
def test_same_in_duckdb(url: str | None, caption: str | None) -> None:
    sql = f"select {UID_SQL} from (select ?::varchar as url, ?::varchar as caption)"
    assert duckdb.execute(sql, [url, caption]).fetchall() == [(uid(url, caption),)]


def test_same_in_spark(spark: SparkSession) -> None:
    rows = spark.createDataFrame(AWKWARD, "url string, caption string").selectExpr(UID_SQL).collect()
    assert [r[0] for r in rows] == [uid(*pair) for pair in AWKWARD]


def test_typed_rows_have_the_columns_of_their_tables() -> None:
    assert list(DownloadRow.__annotations__) == DOWNLOADS.names
    assert set(SampleRow.__annotations__) <= set(SAMPLES.names)
