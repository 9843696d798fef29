"""`curate query`: the same rows as table, csv, json and parquet; one sentence for what DuckDB refuses."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.manifest.query import MAX_ROWS, write_query
from tests.support import small_root
from tests.support.small_root import SmallRoot

ASK = "select source, count(*) as n, max(url) as url from samples group by source order by source"
ODD = (
    "select [1, 2] as l, {'a': 1} as s, 'x'::blob as b, null as n, 1.5::decimal(4, 2) as d, sum(7)::hugeint as h, "
    "date '2020-01-02' as t, interval 3 day as i, 'nan'::double as nan, 'a,\"b' as q, 1 as l"
)


@pytest.fixture
def made(root: object) -> SmallRoot:
    built = small_root.build(root)  # type: ignore[arg-type]
    small_root.pack(built, small_root.select(built))
    return built


def written(made: SmallRoot, sql: str, form: str, folder: Path) -> bytes:
    write_query(made.root, sql, form, str(folder / "out"))
    assert [path.name for path in folder.iterdir() if path.name != "root"] == ["out"]
    return (folder / "out").read_bytes()


def test_all_forms_hold_the_same_rows(made: SmallRoot, tmp_path: Path) -> None:
    urls = {row["source"]: row["url"] for row in sorted(made.samples.values(), key=lambda row: row["url"])}
    wanted = [{"source": name, "n": 20, "url": urls[name]} for name in ("coyo", "laion")]
    lines = written(made, ASK, "json", tmp_path).decode().splitlines()
    assert [json.loads(line) for line in lines] == wanted
    rows = list(csv.DictReader(io.StringIO(written(made, ASK, "csv", tmp_path).decode())))
    assert rows == [{**row, "n": "20"} for row in wanted]
    assert pq.read_table(io.BytesIO(written(made, ASK, "parquet", tmp_path))).to_pylist() == wanted
    table = written(made, ASK, "table", tmp_path).decode().splitlines()
    assert [line.split() for line in (table[0], *table[2:])] == [
        list(wanted[0]),
        *([*map(str, w.values())] for w in wanted),
    ]


def test_types_that_a_form_has_not(made: SmallRoot, tmp_path: Path) -> None:
    (row,) = map(json.loads, written(made, ODD, "json", tmp_path).splitlines())
    assert row["l"] == [1, 2] and row["l_1"] == 1 and row["s"] == {"a": 1} and row["b"] == "78"
    assert (row["d"], row["h"], row["n"], row["nan"], row["t"]) == (1.5, 7, None, None, "2020-01-02")
    (row,) = csv.DictReader(io.StringIO(written(made, ODD, "csv", tmp_path).decode()))
    assert (row["l"], row["s"], row["b"], row["q"], row["h"]) == ("[1, 2]", '{"a": 1}', "78", 'a,"b', "7")
    table = written(made, ODD, "table", tmp_path).decode()
    assert "[1, 2]" in table and "·" in table


def test_the_table_is_short_and_says_so(made: SmallRoot, tmp_path: Path) -> None:
    lines = written(made, "select range as n from range(1234)", "table", tmp_path).decode().splitlines()
    assert len(lines) == 2 + MAX_ROWS + 1
    assert lines[-1].startswith(f"… {1234 - MAX_ROWS:,} more rows")
    long = written(made, "select repeat('x', 500) as text, 'a' || chr(10) || 'b' as two", "table", tmp_path).decode()
    assert max(map(len, long.splitlines())) < 80 and len(long.splitlines()) == 3


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("selct 1", "syntax error"),
        ("select nosuch from samples", "nosuch"),
        ("select * from nosuch", "nosuch"),
        ("select cast('x' as int)", "Could not convert string 'x'"),
        ("select cast(caption as int) from samples", "Could not convert string"),
        ("delete from samples", "read-only"),
        ("select 1; select 2", "read-only"),
        ("", "read-only"),
        ("copy (select 1) to 'x.csv'", "read-only"),
    ],
)
def test_bad_sql_is_one_sentence_and_leaves_no_file(made: SmallRoot, tmp_path: Path, sql: str, reason: str) -> None:
    for form in ("table", "csv", "json", "parquet"):
        with pytest.raises(UserError, match=reason) as caught:
            write_query(made.root, sql, form, str(tmp_path / "out"))
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_value_that_fails_late_leaves_no_half_file(made: SmallRoot, tmp_path: Path) -> None:
    sql = "select cast(if(range < 250_000, '1', 'x') as int) from range(300_000)"
    for form in ("table", "csv", "json", "parquet"):
        with pytest.raises(UserError, match="Could not convert"):
            write_query(made.root, sql, form, str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_folder_that_is_not_there_is_named(made: SmallRoot, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder .*nowhere"):
        write_query(made.root, "select 1", "csv", str(tmp_path / "nowhere" / "out"))


def test_a_reader_that_leaves_early_is_no_error(made: SmallRoot) -> None:
    sql = "select s.* from samples s, range(20_000)"
    command = [sys.executable, "-m", "jobs.cli", "query", made.root.path, sql, "--format", "csv"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith(b'"uid"')
    process.stdout.close()
    assert (process.wait(600), process.stderr.read()) == (141, b"")


class Terminal(io.TextIOWrapper):
    """Standard output that says it is a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")

    def isatty(self) -> bool:
        return True


def shown(made: SmallRoot, monkeypatch: pytest.MonkeyPatch, sql: str, form: str = "table") -> list[str]:
    """The lines that a terminal of 80 columns gets."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    write_query(made.root, sql, form, None)
    buffer = terminal.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode().splitlines()


def test_a_wide_table_fits_the_terminal_and_says_what_is_left_out(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(made, monkeypatch, "select * from manifest")
    assert max(map(len, lines)) <= 80 and lines[0].startswith("uid ")
    names = Manifest(made.root).columns("manifest")
    left = len(names) - len(lines[0].split())
    assert lines[-1].startswith(f"… {left} more columns; ") and 0 < left < len(names)


@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_few_wide_rows_have_a_line_for_each_column(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch, num_rows: int
) -> None:
    lines = shown(made, monkeypatch, f"select * from manifest order by uid limit {num_rows}")
    names = Manifest(made.root).columns("manifest")
    assert [line.split()[0] for line in lines if not line.startswith("──")] == names * num_rows
    assert len(lines) == num_rows * len(names) + (num_rows if num_rows > 1 else 0)


def test_narrow_tables_and_other_forms_are_whole_on_a_terminal(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "more columns" not in "".join(shown(made, monkeypatch, ASK))
    (header, *_) = shown(made, monkeypatch, "select * from manifest", "csv")
    assert len(header.split(",")) == len(Manifest(made.root).columns("manifest"))


@pytest.mark.parametrize("form", ["table", "csv", "json"])
@pytest.mark.parametrize(
    "value",
    ["date 'infinity'", "timestamp '-infinity'", "date '0044-03-15 (BC)'", "[timestamptz '290000-01-01 00:00+00']"],
)
def test_a_value_that_python_cannot_hold_is_one_sentence(
    made: SmallRoot, tmp_path: Path, form: str, value: str
) -> None:
    sql = f"select {value} as v" if form != "csv" else f"select [{value}] as v"
    with pytest.raises(UserError, match="cannot hold .*cast its column to varchar"):
        write_query(made.root, sql, form, str(tmp_path / "out"))


def test_a_union_has_no_form_in_parquet(made: SmallRoot, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot hold"):
        write_query(made.root, "select union_value(a := 1) as v", "parquet", str(tmp_path / "out"))


def test_columns_with_one_name_are_numbered_past_names_that_are_taken(made: SmallRoot, tmp_path: Path) -> None:
    table = pq.read_table(io.BytesIO(written(made, "select 1 as a, 2 as a, 3 as a_1", "parquet", tmp_path)))
    assert table.to_pylist() == [{"a": 1, "a_2": 2, "a_1": 3}]
