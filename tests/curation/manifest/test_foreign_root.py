"""A root that somebody else made: what its names and texts say is never run, and queries read that root alone."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.report import status_text, write_html
from curation.storage import Root
from tests.support.small_root import UNITS, SmallRoot
from tests.support.whole_root import build_whole_root


@pytest.fixture
def foreign(root: Root) -> SmallRoot:
    return build_whole_root(root)


def _attack(target: Path) -> str:
    return f"uid\" from samples; copy (select 1) to '{target}'; --"


def _add_column(root: Root, name: str) -> None:
    for unit in UNITS:
        table = root.read_parquet(f"scores_words/{unit}.parquet")
        column = pa.array(["x"] * len(table))
        root.publish_parquet(f"scores_words/{unit}.parquet", table.append_column(name, column))


def test_sql_in_the_name_of_a_column_is_refused_and_never_run(foreign: SmallRoot, tmp_path: Path) -> None:
    target = tmp_path / "written"
    _add_column(foreign.root, _attack(target))
    with pytest.raises(UserError, match="scores_words has a name that no filter writes"):
        status_text(foreign.root)
    assert not target.exists()


def test_sql_in_the_name_of_a_folder_is_refused_and_never_run(foreign: SmallRoot, tmp_path: Path) -> None:
    target = tmp_path / "written"
    folder = f"scores_{_attack(Path('x'))}".replace("/", "")
    scores = foreign.root.read_parquet(f"scores_words/{UNITS[0]}.parquet")
    foreign.root.publish_parquet(f"{folder}/{UNITS[0]}.parquet", scores)
    with pytest.raises(UserError, match="a name that no filter writes"):
        Manifest(foreign.root)
    assert not target.exists()


@pytest.mark.parametrize("name", ["NUM_WORDS", "two\nlines", "\x1b[2J", "n" * 300])
def test_names_that_no_filter_writes_are_refused(foreign: SmallRoot, name: str) -> None:
    _add_column(foreign.root, name)
    with pytest.raises(UserError, match="no filter writes|twice"):
        Manifest(foreign.root)


def test_a_score_cannot_stand_for_a_column_of_the_manifest(foreign: SmallRoot) -> None:
    _add_column(foreign.root, "Kept")
    _add_column(foreign.root, "reason")
    with Manifest(foreign.root) as manifest:
        kept = manifest.query("select count(*) from manifest where kept").fetchall()
        assert kept == manifest.query("select count(*) from selection where kept").fetchall()
        assert manifest.query("select count(*) from manifest where reason = 'x'").fetchall() == [(0,)]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{other}')",
        "select * from '{other}'",
        "select * from read_csv('{other}')",
        "select * from glob('{folder}/*')",
        "select * from read_text('{root}/../other.csv')",
        "select * from sniff_csv('{other}')",
        "select content from read_blob('{other}')",
    ],
)
def test_a_query_reads_its_root_and_nothing_else(foreign: SmallRoot, tmp_path: Path, sql: str) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    asked = sql.format(other=other, folder=tmp_path, root=foreign.root.path)
    # Some functions look at their files only when rows are asked for.
    with pytest.raises((UserError, duckdb.PermissionException)), Manifest(foreign.root) as manifest:
        manifest.query(asked).fetchall()
    with Manifest(foreign.root, allow_files=True) as manifest:
        assert manifest.query(asked).fetchall()


def test_files_that_the_caller_names_are_read_too_and_no_others(foreign: SmallRoot, tmp_path: Path) -> None:
    for name in ("named.csv", "other.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    with Manifest(foreign.root, allow_files=[str(tmp_path / "named.csv")]) as manifest:
        assert manifest.query(f"select a from '{tmp_path / 'named.csv'}'").fetchall() == [(1,)]
        with pytest.raises(UserError, match="DuckDB refuses"):
            manifest.query(f"select a from '{tmp_path / 'other.csv'}'")


@pytest.mark.parametrize(
    "sql",
    [
        "set enable_external_access = true",
        "copy (select 1) to '{file}'",
        "attach '{file}'",
        "install httpfs",
        "load httpfs",
        "create table t as select 1",
        "select 1; select 2",
        "pragma database_list",
    ],
)
def test_a_query_changes_nothing(foreign: SmallRoot, tmp_path: Path, sql: str) -> None:
    file = tmp_path / "file"
    with pytest.raises(UserError), Manifest(foreign.root) as manifest:
        manifest.query(sql.format(file=file)).fetchall()
    assert not file.exists()


def test_a_variable_of_python_is_no_table(foreign: SmallRoot) -> None:
    secret = pa.table({"a": [1]})
    with pytest.raises(UserError, match="secret"), Manifest(foreign.root) as manifest:
        manifest.query("select * from secret")
    assert len(secret) == 1


@pytest.mark.parametrize("name", ["a[b]c", "star*", "what?", "{x,y}", 'quo"te', "it's", "back\\slash", "two  blanks"])
def test_a_root_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    made = build_whole_root(_create(Root(tmp_path / name / "root")))
    for decoy in ("abc", "starry", "whats"):
        build_whole_root(_create(Root(tmp_path / decoy / "root")))
    with Manifest(made.root) as manifest:
        assert manifest.query("select count(*) from manifest").fetchall() == [(len(made.samples),)]
        assert manifest.query("select count(*) from manifest where kept").fetchall()[0][0] > 0


def _create(root: Root) -> Root:
    root.create()
    return root


def test_what_a_root_says_reaches_the_report_as_text_only(foreign: SmallRoot, tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    for unit in UNITS:
        table = foreign.root.read_parquet(f"samples/{unit}.parquet")
        for column in ("caption", "source", "url"):
            forged = pa.array([f"{script} to {script}"] * len(table))
            table = table.set_column(table.column_names.index(column), column, forged)
        foreign.root.publish_parquet(f"samples/{unit}.parquet", table)
        scores = foreign.root.read_parquet(f"scores_words/{unit}.parquet")
        languages = [f"{script} to {n % 2}" for n in range(len(scores))]
        scores = scores.append_column("language", pa.array(languages))
        scores = scores.append_column("<b>", pa.array([float(n) for n in range(len(scores))]))
        foreign.root.publish_parquet(f"scores_words/{unit}.parquet", scores)
    config = json.loads(foreign.root.read_bytes("selection/current.json"))
    config["config"] = {"rules": {script: script}, "order": [script]}
    foreign.root.publish_json("selection/current.json", config)
    page = tmp_path / "report.html"
    write_html(foreign.root, page)
    text = page.read_text()
    assert "<script" not in text and "<b>" not in text
    assert "&lt;script&gt;" in text


def test_a_torn_table_is_one_sentence(foreign: SmallRoot) -> None:
    file = Path(foreign.root.path, f"scores_words/{UNITS[0]}.parquet")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match="scores_words"):
        Manifest(foreign.root)


def test_parquet_of_another_kind_is_one_sentence(foreign: SmallRoot) -> None:
    pq.write_table(pa.table({"a": [1]}), Path(foreign.root.path, f"samples/{UNITS[0]}.parquet"))
    with pytest.raises(UserError, match="samples"):
        Manifest(foreign.root).query("select count(url) from samples").fetchall()
