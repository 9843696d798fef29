"""The manifest: every view, read-only, as narrow as a query allows, and sound while a job writes."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from curation import schema
from curation.errors import UserError
from curation.manifest import manifest as manifest_module
from curation.manifest import uid_index
from curation.manifest.manifest import Manifest
from curation.storage import Root
from tests.support import s3_proxy, s3_server, small_root
from tests.support.many_units import many_units
from tests.support.small_root import UNITS, SmallRoot
from tests.support.whole_root import QUERIES, build_whole_root, rounded_rows


def test_every_view_has_its_rows(made: SmallRoot) -> None:
    manifest = Manifest(made.root)
    counts = {
        "samples": 40, "rejects": 2, "downloads": 40, "duplicates": 2, "scores_words": 32, "scores_sharp": 16,
        "scores": 32, "selection": 40, "manifest": 40, "train_index": len(_kept(made)),
    }  # fmt: skip
    assert {v: manifest.query(f"select count(*) from {v}").fetchall()[0][0] for v in counts} == counts
    assert manifest.score_tables() == ["scores_sharp", "scores_words"]
    assert manifest.columns("samples") == schema.SAMPLES.names
    assert manifest.columns("scores") == ["uid", "odd name", "num_words"]
    wide = manifest.columns("manifest")
    assert len(set(wide)) == len(wide)
    assert [*schema.SAMPLES.names, *(c for c in schema.DOWNLOADS.names if c != "uid"), "odd name", "num_words"] == wide[
        : len(schema.SAMPLES.names) + len(schema.DOWNLOADS.names) + 1
    ]


def test_batches_with_several_captions_stand_beside_those_with_one(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uid_index, "MIN_FILES", 2)
    monkeypatch.setattr(manifest_module, "MIN_FILES", 2)
    root.create()
    for number, batch in enumerate(("aaaaaaaa", "bbbbbbbb", "cccccccc")):
        columns = schema.samples_schema((1, 3, 2)[number])
        rows = [{"uid": f"{number}{k}" * 16, "caption": f"c{k}", "caption_2": f"d{k}"} for k in range(2)]
        root.publish_json(f"plans/{batch}.json", {"number": number, "inputs": [], "batch": batch})
        root.publish_parquet(f"samples/{batch}-000000.parquet", pa.Table.from_pylist(rows, columns))
    manifest = Manifest(root)
    assert manifest.columns("samples") == schema.samples_schema(3).names
    assert {"caption_2", "caption_3"} < set(manifest.columns("manifest"))
    asked = "select uid, caption_2 from {} where caption_2 is not null order by uid"
    expected = [(f"{number}{k}" * 16, f"d{k}") for number in (1, 2) for k in range(2)]
    for view in ("samples", "manifest"):
        assert manifest.query(asked.format(view)).fetchall() == expected
        one = manifest.query(f"select * from {view} where uid = '{'00' * 16}'").to_arrow_table()
        assert one.column_names == manifest.columns(view), "a look-up that opens one file gives all columns"
        assert one["caption"].to_pylist() == ["c0"] and one["caption_2"].to_pylist() == [None]


def _kept(made: SmallRoot) -> list[str]:
    rows = made.downloads.items()
    return sorted(uid for uid, row in rows if row["status"] == "ok" and row["width"] / row["height"] >= 1.2)


def test_the_wide_view_has_one_row_a_uid(made: SmallRoot) -> None:
    found = Manifest(made.root).query("select * from manifest").to_arrow_table().to_pylist()
    assert sorted(row["uid"] for row in found) == sorted(made.samples)
    places = {row["uid"]: row for row in Manifest(made.root).query("from train_index").to_arrow_table().to_pylist()}
    ok = sorted(made.images)
    for row in found:
        uid, download = row["uid"], made.downloads[row["uid"]]
        assert {c: row[c] for c in ("status", "width", "shard", "offset")} == {
            c: download.get(c) for c in ("status", "width", "shard", "offset")
        }
        assert row["aesthetic"] == pytest.approx(made.samples[uid]["aesthetic"]), "samples come before scores"
        assert row["duplicate_of"] == {ok[0]: ok[1], ok[5]: ok[6]}.get(uid)
        assert row["kept"] == (uid in _kept(made)) and (row["reason"] is None) == row["kept"]
        assert row["train_shard"] == places.get(uid, {}).get("shard")


def test_tables_that_do_not_stand_yet_are_empty(root: Root) -> None:
    manifest = Manifest(root)
    assert manifest.query("select * from manifest").fetchall() == []
    small_root.build(root)
    found = Manifest(root).query("select kept, train_shard, status from manifest where status = 'ok'").fetchall()
    assert len(found) == 32 and {row[:2] for row in found} == {(None, None)}


@pytest.mark.parametrize(
    "sql",
    [
        "insert into samples select * from samples",
        "copy (select 1) to 'x.csv'",
        "create table x as select 1",
        "drop view manifest",
        "attach 'x.db'",
        "select 1; select 2",
        "pragma database_list",
        "",
    ],
)
def test_it_is_read_only(made: SmallRoot, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="The manifest is read-only: ask it with one SELECT"):
        Manifest(made.root).query(sql)
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select scoer from manifest", "scoer"),
        ("select kept from manifset", "manifset"),
        ("selct 1", "selct"),
        ("select num_words + source from manifest where kept", "DuckDB refuses"),
    ],
)
def test_bad_sql_is_one_sentence_about_what_was_written(made: SmallRoot, sql: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        Manifest(made.root).query(sql).fetchall()
    assert "\n" not in str(caught.value) and "DuckDB refuses the query" in str(caught.value)


def test_a_damaged_file_is_named(root: Root) -> None:
    small_root.build(root)
    root.publish(f"samples/{UNITS[0]}.parquet", b"PAR1 nonsense")
    with pytest.raises(UserError, match="samples/.*parquet is not a readable parquet file"):
        Manifest(root)


# While a job writes

WRITER = """
import sys
import pyarrow as pa
from curation import schema
from curation.storage import Root
from tests.support.small_root import sample

root, number = Root(sys.argv[1]), 0
while True:
    unit = f"00000000-{number:06d}"
    rows = sorted((sample(50 * number + k) for k in range(50)), key=lambda row: row["uid"])
    root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
    ends = [{**dict.fromkeys(schema.DOWNLOADS.names), "uid": row["uid"], "status": "timeout"} for row in rows]
    root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(ends, schema.DOWNLOADS))
    table = pa.table({"uid": [r["uid"] for r in rows], "kept": [False] * 50, "reason": [f"v{number}"] * 50})
    files = [f"selection/{number:012x}/{k}.parquet" for k in range(3)]
    for rel in files:
        root.publish_parquet(rel, table)
    root.publish_current("selection", f"{number:012x}", files, {}, {})
    number += 1
"""


@pytest.fixture
def written(root: Root) -> Iterator[Root]:
    """A root that another process is filling as fast as it can."""
    root.publish_json("plans/00000000.json", {"number": 0, "inputs": []})
    writer = subprocess.Popen([sys.executable, "-c", WRITER, root.path])
    try:
        while len(root.units("downloads")) < 3:
            time.sleep(0.02)
        yield root
        assert writer.poll() is None, "the writer must still be writing"
    finally:
        writer.kill()
        writer.wait()


def test_queries_are_sound_while_a_job_writes(written: Root) -> None:
    first = Manifest(written)
    seen = first.query("select count(*), count(distinct uid) from samples").fetchall()
    versions = Counter()
    for number in itertools.count():
        if number >= 15 and len(versions) > 1:  # a busy machine may keep the writer waiting for long
            break
        manifest = Manifest(written)
        samples, distinct = manifest.query("select count(*), count(distinct uid) from samples").fetchall()[0]
        assert samples == distinct and samples % 50 == 0, "whole units only"
        (unfinished,) = manifest.query("select count(*) from manifest where status is null").fetchall()[0]
        assert unfinished % 50 == 0
        found = manifest.query("select reason, count(*) from selection group by reason").fetchall()
        assert [count for _, count in found] == [150], "one whole version"
        versions[found[0][0]] += 1
        # A manifest is what stood when it was opened, however much has come since.
        assert first.query("select count(*), count(distinct uid) from samples").fetchall() == seen
    assert len(written.units("samples")) * 50 > seen[0][0]


# On an object store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server.s3() as endpoint:
        yield endpoint


@pytest.mark.slow
def test_a_root_on_s3(s3: str, made: SmallRoot) -> None:
    root = Root("s3://curation/whole", **s3_server.options(s3))
    root.create()
    build_whole_root(root)
    remote, local = Manifest(root), Manifest(made.root)
    for sql in QUERIES:
        assert rounded_rows(remote.query(sql)) == rounded_rows(local.query(sql))
    # What another client has published since is there for the next manifest, in spite of cached listings.
    other = Root("s3://curation/whole", **s3_server.options(s3, skip_instance_cache=True))
    unit = f"{small_root.BATCH}-000002"
    row = {**dict.fromkeys(schema.SAMPLES.names), "uid": "f" * 32}
    other.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist([row], schema.SAMPLES))
    assert Manifest(root).query("select count(*) from samples").fetchall() == [(41,)]


def test_s3_look_ups_prune_too(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uid_index, "MIN_FILES", 8)
    monkeypatch.setattr(manifest_module, "MIN_FILES", 8)
    root = Root("s3://curation/many", **s3_server.options(s3))
    root.create()
    many = many_units(root, range(12))
    manifest = Manifest(root)
    for uid, unit in list(many.items())[::30]:
        found = manifest.query("select status from manifest where uid = ?", [uid]).fetchall()
        assert found == [(f"http_{int(unit[9:])}",)]


@pytest.mark.slow
def test_a_store_that_answers_503_is_an_error_that_says_so(s3: str) -> None:
    Root("s3://curation/busy", **s3_server.options(s3)).create()
    with s3_proxy.Moody(s3) as moody:
        root = Root("s3://curation/busy", **s3_server.options(moody.endpoint, skip_instance_cache=True))
        moody.fail_next = 1
        assert Manifest(root).query("select count(*) from samples").fetchall() == [(0,)]
        assert moody.num_refused == 1, "a passing failure is tried again"
        moody.down = True
        with pytest.raises(OSError, match="Service Unavailable|reduce your request rate") as caught:
            Manifest(root)
        assert moody.num_refused > 2 and caught.value.errno, "the command line says it in one sentence"


def test_a_manifest_is_closed_behind_its_context(made: SmallRoot) -> None:
    with Manifest(made.root) as manifest:
        assert manifest.query("select count(*) from samples").fetchall() == [(40,)]
    with pytest.raises(duckdb.ConnectionException):
        manifest.connection.execute("select 1")


def test_a_query_on_units_reads_the_files_of_those_units_alone(root: Root) -> None:
    made = small_root.finish(root)
    with Manifest(root) as manifest:
        for table in ("samples", "downloads", "selection/" + small_root.VERSION):
            root.remove(f"{table}/{small_root.UNITS[1]}.parquet")
        sql = "select uid, width, reason, duplicate_of from unit_rows as manifest where status = 'ok' order by uid"
        rows = manifest.query_units(sql, small_root.UNITS[:1]).fetchall()
        assert [row[0] for row in rows] == sorted(u for u in made.images if made.units[u] == small_root.UNITS[0])
        assert manifest.query_units("select count(*) from unit_rows", []).fetchall() == [(0,)]


def test_a_subquery_of_a_query_on_units_sees_all_rows(root: Root) -> None:
    made = small_root.finish(root)
    with Manifest(root) as manifest:
        sql = "select count(*), (select count(*) from manifest) from unit_rows where uid in (select uid from manifest)"
        num_rows = sum(name == small_root.UNITS[0] for name in made.units.values())
        assert manifest.query_units(sql, small_root.UNITS[:1]).fetchall() == [(num_rows, len(made.units))]


@pytest.mark.parametrize(
    "sql", ["select nothing from unit_rows", "select 1 from unit_rows order by #1", "drop table x"]
)
def test_a_wrong_query_on_units_is_one_sentence(root: Root, sql: str) -> None:
    small_root.build(root)
    with Manifest(root) as manifest, pytest.raises(UserError, match="DuckDB refuses the query"):
        manifest.query_units(sql, small_root.UNITS)
