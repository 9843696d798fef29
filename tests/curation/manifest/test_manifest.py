"""The manifest: every view, read-only, as narrow as a query allows, and sound while a job writes."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation import schema
from curation.errors import UserError
from curation.manifest import manifest as manifest_module
from curation.manifest import uid_index as uid_filter
from curation.manifest.manifest import Manifest
from curation.manifest.uid_index import UidFilter
from curation.storage import Root
from tests.support import s3_server, small_root
from tests.support.small_root import UNITS, SmallRoot


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    gc.collect()  # connections of failed queries end here, and not in the thread of an S3 client that others wait for


def _whole(root: Root) -> SmallRoot:
    """Every table there is, two tables of scores among them."""
    made = small_root.build(root)
    ok = sorted(made.images)
    small_root.duplicates(made, {ok[0]: ok[1], ok[5]: ok[6]})
    for unit in UNITS:
        uids = [uid for uid in ok if made.units[uid] == unit]
        words = pa.array([len(uid.strip("0")) for uid in uids], pa.int32())
        root.publish_parquet(f"scores_words/{unit}.parquet", pa.table({"uid": uids, "num_words": words}))
        # The second has no row for some, and a column that samples has too.
        half = uids[::2]
        sharp = pa.table({"uid": half, "odd name": [1.5] * len(half), "aesthetic": pa.array([9.0] * len(half))})
        root.publish_parquet(f"scores_sharp/{unit}.parquet", sharp)
    small_root.pack(made, small_root.select(made))
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRoot:
    root = Root(tmp_path_factory.mktemp("whole") / "root")
    root.create()
    return _whole(root)


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


QUERIES = [
    "select source, count(*), avg(aesthetic) from manifest group by source order by 1",
    "select count(*) from manifest",
    "select count(*) from manifest where kept and status = 'ok'",
    "select m.uid, M.Reason from manifest m where not m.kept order by 1",
    "with a as (select uid, row_number() over (partition by source order by uid) as r from manifest) from a order by 1",
    "select uid, \"odd name\" from manifest where \"odd name\" is not null order by uid",
    "select m from manifest m order by uid",
    "select a.uid, b.kept from manifest a join manifest b on a.uid = b.duplicate_of order by all",
    "select uid from manifest where uid in (select uid from manifest where num_words > 3) order by uid limit 3",
    "select source from manifest semi join (select kept, source from manifest where kept) k using (source) order by 1",
    "from (pivot manifest on source in ('laion', 'coyo') using count(*) group by kept) order by all",
    "select column_name, min, max, count from (summarize select width, source from manifest)",
    "select columns('dupl.*') from manifest order by all",
    "with manifest as (select 1 as kept) select kept, count(*) from manifest group by all",
    "select count(*) from manifest natural join selection",
    "select width * 2 as w, count(*) from manifest where lower(source) = 'coyo' group by all order by all",
    "select uid from samples union select uid from manifest where kept order by 1 -- the end",
    "from selection where uid = (select min(uid) from selection)",
]  # fmt: skip


@pytest.mark.parametrize("sql", QUERIES)
def test_a_narrowed_query_gives_what_the_whole_view_gives(made: SmallRoot, sql: str) -> None:
    manifest = Manifest(made.root)
    whole = manifest.connection.sql(sql)
    found = manifest.query(sql)
    assert found.columns == whole.columns
    assert _rounded(found) == _rounded(whole)


def _rounded(relation: duckdb.DuckDBPyRelation) -> list[list[Any]]:
    """All rows; averages to 9 digits, since threads add in any order."""
    return [[round(v, 9) if isinstance(v, float) else v for v in row] for row in relation.fetchall()]


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
    with pytest.raises(UserError, match="samples cannot be read"):
        Manifest(root)


# Look-ups


def _many_units(root: Root, units: range) -> dict[str, str]:
    """Samples and downloads of twelve rows a unit; uid → unit."""
    found = {}
    for number in units:
        unit = f"{number % 7:08x}-{number:06d}"
        rows = [{**small_root.sample(12 * number + k)} for k in range(12)]
        for row in rows:
            row["uid"] = schema.uid(row["url"], f"{number}")
            found[row["uid"]] = unit
        rows.sort(key=lambda row: row["uid"])
        root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
        lost = [{**dict.fromkeys(schema.DOWNLOADS.names), "uid": r["uid"], "status": f"http_{number}"} for r in rows]
        root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(lost, schema.DOWNLOADS))
        root.publish_json(f"plans/{number % 7:08x}.json", {"number": number % 7, "inputs": []})
    return found


@pytest.fixture
def many(root: Root, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(uid_filter, "MIN_FILES", 8)
    monkeypatch.setattr(manifest_module, "MIN_FILES", 8)
    monkeypatch.setattr(uid_filter, "FILES_PER_SEGMENT", 16)
    return _many_units(root, range(40))


def test_a_look_up_finds_each_uid_in_few_files(root: Root, many: dict[str, str]) -> None:
    manifest = Manifest(root)
    asked = UidFilter(root, manifest.files("samples"))
    num_read = []
    for uid, unit in many.items():
        holding = asked.files_with([uid])
        assert f"samples/{unit}.parquet" in holding
        num_read.append(len(holding))
    assert sum(num_read) < 1.1 * len(many), "one file a uid, but for chance"
    for uid in sorted(many)[::40]:
        found = manifest.query("select * from manifest where uid = ?", [uid]).to_arrow_table().to_pylist()
        assert [(row["uid"], row["status"]) for row in found] == [(uid, f"http_{int(many[uid][9:])}")]
        assert manifest.query(f"select count(*) from samples s where '{uid}' = s.uid").fetchall() == [(1,)]
    three = sorted(many)[:3]
    found = manifest.query("select uid from manifest where source <> '' and uid in (?, ?, ?) order by 1", three)
    assert [uid for (uid,) in found.fetchall()] == three
    assert manifest.query("select * from manifest where uid = ?", ["f" * 32]).fetchall() == []
    assert manifest.query("select * from manifest where uid = 'no uid'").fetchall() == []
    both = f"select count(*) from manifest where uid = '{three[0]}' or uid = '{three[1]}'"
    assert manifest.query(both).fetchall() == [(2,)]


def test_a_look_up_reads_the_file_and_no_other(root: Root, many: dict[str, str]) -> None:
    """Every other file is damaged behind the manifest's back; the look-up does not notice, a scan does."""
    manifest = Manifest(root)
    uid, unit = next(iter(many.items()))
    manifest.query("select * from downloads where uid = ?", [uid])
    for name in manifest.files("downloads"):
        if Path(name).stem != unit:
            path = Path(root.full(name))
            path.write_bytes(b"x" * path.stat().st_size)
    assert manifest.query("select status from downloads where uid = ?", [uid]).fetchall() == [("http_0",)]
    with pytest.raises(Exception, match="(?i)parquet|magic"):
        manifest.query("select count(distinct status) from downloads").fetchall()


def test_units_that_came_later_are_found(root: Root, many: dict[str, str], tmp_path: Path) -> None:
    manifest = Manifest(root)
    manifest.query("select * from samples where uid = ?", ["0" * 32]).fetchall()
    folder = next((tmp_path / "cache-home/clip-curation/uids").iterdir())
    before = {path.name for path in folder.glob("*.npy")}
    assert len(before) == 3  # 40 files in segments of 16
    later = _many_units(root, range(40, 45))
    for uid in list(later)[::6]:
        assert manifest.query("select * from samples where uid = ?", [uid]).fetchall() == [], "opened before they came"
        assert len(Manifest(root).query("select * from samples where uid = ?", [uid]).fetchall()) == 1
    assert before < {path.name for path in folder.glob("*.npy")}


def test_without_a_cache_folder_every_file_is_asked(
    root: Root, many: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    uid = next(iter(many))
    assert Manifest(root).query("select status from manifest where uid = ?", [uid]).fetchall() == [("http_0",)]


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
    for _ in range(15):
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
    assert len(versions) > 1
    assert len(written.units("samples")) * 50 > seen[0][0]


# On an object store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server.s3() as endpoint:
        yield endpoint


def test_a_root_on_s3(s3: str, made: SmallRoot) -> None:
    root = Root("s3://curation/whole", **s3_server.options(s3))
    root.create()
    _whole(root)
    remote, local = Manifest(root), Manifest(made.root)
    for sql in QUERIES:
        assert _rounded(remote.query(sql)) == _rounded(local.query(sql))
    # What another client has published since is there for the next manifest, in spite of cached listings.
    other = Root("s3://curation/whole", **s3_server.options(s3, skip_instance_cache=True))
    unit = f"{small_root.BATCH}-000002"
    row = {**dict.fromkeys(schema.SAMPLES.names), "uid": "f" * 32}
    other.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist([row], schema.SAMPLES))
    assert Manifest(root).query("select count(*) from samples").fetchall() == [(41,)]


def test_s3_look_ups_prune_too(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uid_filter, "MIN_FILES", 8)
    monkeypatch.setattr(manifest_module, "MIN_FILES", 8)
    root = Root("s3://curation/many", **s3_server.options(s3))
    root.create()
    many = _many_units(root, range(12))
    manifest = Manifest(root)
    for uid, unit in list(many.items())[::30]:
        found = manifest.query("select status from manifest where uid = ?", [uid]).fetchall()
        assert found == [(f"http_{int(unit[9:])}",)]


@pytest.mark.slow
def test_a_store_that_answers_503_is_an_error_that_says_so(s3: str) -> None:
    Root("s3://curation/busy", **s3_server.options(s3)).create()
    with s3_server.Moody(s3) as moody:
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
