"""Bad input by the real command line: one sentence, what is wrong and what to do; status 2; nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.schema import ROOT_FORMAT
from curation.storage import Root
from curation.verify import verify
from tests.support import small_root
from tests.support.command import Command, contents, sentence
from tests.support.demo_run import BIN, REPOSITORY, environment
from tests.support.small_disk import mount_small_disk
from tests.support.small_root import UNITS, SmallRoot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STAGES = ("ingest", "download", "embed", "dedupe", "score", "select", "pack")
LOOKS = (("status",), ("verify",), ("report", "--output", "r.html"), ("query", "select 1"))
RECIPE = """
[[sources]]
name = "laion"
format = "laion2b"
paths = ["part-*.parquet"]
"""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a recipe and one file of metadata."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    (place / "r.toml").write_text(RECIPE)
    rows = [{"URL": f"http://h.test/{i}.jpg", "TEXT": f"{i}", "similarity": 0.3} for i in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), place / "part-0.parquet")
    return place


@pytest.fixture
def made(folder: Path) -> SmallRoot:
    """A root `done` in the working folder, with every stage behind it."""
    root = Root("done")
    root.create()
    built = small_root.build(root)
    small_root.pack(built, small_root.select(built))
    return built


def refused(command: Command, folder: Path, *arguments: object) -> str:
    """As `Command.refuses`; fails too when anything in `folder` was written or changed."""
    before = contents(folder)
    said = command.refuses(*arguments)
    assert contents(folder) == before
    return said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[downlaod]\nretries = 1", ("Unknown key 'downlaod'", "did you mean download?")),
        ("[download]\nretry = 1", ("Unknown key 'retry'", "did you mean retries?", "allowed:")),
        ('[download]\nretries = "two"', ("retries", "int", "'two'")),
        ('[download]\nresize_mode = "stretch"', ("resize_mode", "'stretch'", "'keep_ratio'")),
        ("[download]\nencode_quality = 101", ("encode_quality", "1..100", "101")),
        ('[download]\nallow_addresses = ["home"]', ("'home'",)),
        ("[dedupe]\nmin_cosine = 2.0", ("min_cosine", "2.0")),
        ("[download\n", ("r.toml", "TOML")),
    ],
)
def test_a_recipe_that_is_wrong(command: Command, folder: Path, more: str, words: tuple[str, ...]) -> None:
    (folder / "r.toml").write_text(RECIPE + more)
    said = refused(command, folder, "run", "--recipe", "r.toml", "--root", "new")
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("download.retry=1", ("Unknown key 'retry'", "retries")),
        ("download.retries", ("download.retries", "section.key=value")),
        ("download.retries.more=1", ("retries in download", "int")),
        ("sources.7.name=x", ("sources.7.name=x", "not an index below 1")),
    ],
)
def test_an_override_that_is_wrong(command: Command, folder: Path, override: str, words: tuple[str, ...]) -> None:
    said = refused(command, folder, "run", "--recipe", "r.toml", "--root", "new", "--set", override)
    assert all(word in said for word in words), said


def test_a_recipe_that_is_not_there(command: Command, folder: Path) -> None:
    said = refused(command, folder, "run", "--recipe", "other.toml", "--root", "new")
    assert said.startswith("There is no recipe other.toml") and "coyo-700m" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("ingest", "--recipe", "r.toml"),
        ("ingest", "--recipe", "r.toml", "--root", "new", "--frob"),
        ("query", "done", "select 1", "--format", "xml"),
    ],
)
def test_options_that_do_not_exist(command: Command, folder: Path, arguments: tuple[str, ...]) -> None:
    before = contents(folder)
    assert command(*arguments) == 2
    assert "error: " in command.err and "Traceback" not in command.err
    assert contents(folder) == before


def test_a_command_that_does_not_exist(command: Command, folder: Path) -> None:
    said = refused(command, folder, "frobnicate")
    assert said.startswith("There is no command 'frobnicate'; there are ingest, "), said


def metadata(folder: Path, name: str) -> None:
    """Make the metadata wrong in the way called `name`."""
    file = folder / "part-0.parquet"
    if name == "no url":
        pq.write_table(pq.read_table(file).drop_columns(["URL"]), file)
    elif name == "no caption":
        pq.write_table(pq.read_table(file).drop_columns(["TEXT"]), file)
    elif name == "torn":
        file.write_bytes(file.read_bytes()[:-100])
    elif name == "html":
        file.write_bytes(b"<!DOCTYPE html>")
    elif name == "empty":
        file.write_bytes(b"")
    elif name == "gone":
        file.unlink()
    elif name == "unknown":
        pq.write_table(pa.table({"a": [1], "b": [2]}), file)
        (folder / "r.toml").write_text(RECIPE.replace("laion2b", "auto"))
    elif name == "format":
        (folder / "r.toml").write_text(RECIPE.replace("laion2b", "laion6b"))
    elif name == "where":
        (folder / "r.toml").write_text(RECIPE + 'where = "similarty > 0.3"')
    elif name == "none":
        (folder / "r.toml").write_text("")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no url", ("part-0.parquet", "no column for url", "URL".lower(), "TEXT")),
        ("no caption", ("part-0.parquet", "no column for caption")),
        ("torn", ("part-0.parquet", "not a readable parquet file")),
        ("html", ("part-0.parquet", "a page of HTML", "download it again")),
        ("empty", ("part-0.parquet", "is empty")),
        ("gone", ("'laion'", "part-*.parquet", "check the path")),
        ("unknown", ("part-0.parquet", "a, b", "name its format")),
        ("format", ("laion6b", "laion400m")),
        ("where", ("'laion'", "similarty")),
        ("none", ("[[sources]]",)),
    ],
)
def test_metadata_that_is_wrong(command: Command, folder: Path, name: str, words: tuple[str, ...]) -> None:
    metadata(folder, name)
    said = refused(command, folder, "ingest", "--recipe", "r.toml", "--root", "new")
    assert all(word in said for word in words), said


def spoil(root: Path, name: str) -> None:
    if name == "version":
        (root / "root.json").write_text('{"format": 99, "version": "9.9"}')
    elif name == "damaged":
        (root / "root.json").write_text("{")
    elif name == "no root":
        (root / "root.json").unlink()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("version", ("layout 99", f"reads layout {ROOT_FORMAT}", "new root")),
        ("damaged", ("root.json is damaged",)),
        ("no root", ("root.json",)),
    ],
)
def test_a_root_that_is_not_ours(command: Command, made: SmallRoot, name: str, words: tuple[str, ...]) -> None:
    folder = Path.cwd()
    spoil(folder / "done", name)
    calls: list[tuple[str, ...]] = [(verb, "done", *more) for verb, *more in LOOKS]
    calls += [(stage, "--recipe", "r.toml", "--root", "done") for stage in STAGES if stage != "ingest"]
    calls += [("demo", "--root", "done")]
    for call in calls:
        said = refused(command, folder, *call)
        assert all(word in said for word in words), (call, said)


def test_ingest_into_a_folder_that_is_no_root(command: Command, folder: Path) -> None:
    (folder / "photos").mkdir()
    (folder / "photos" / "mine.jpg").write_bytes(b"x")
    said = refused(command, folder, "ingest", "--recipe", "r.toml", "--root", "photos")
    assert "photos is not empty" in said


def test_a_root_that_is_not_there(command: Command, folder: Path) -> None:
    for verb, *more in LOOKS:
        said = refused(command, folder, verb, "nowhere", *more)
        assert said == "nowhere is no root (it has no root.json): run `curate ingest` first."


def test_a_root_on_a_store_that_is_unknown(command: Command, folder: Path) -> None:
    said = refused(command, folder, "status", "nostore://bucket/run")
    assert "nostore" in said


def test_stages_in_the_wrong_order(command: Command, folder: Path, spark: SparkSession) -> None:
    """Each says which stage has to run first."""
    Root("new").create()
    before = {
        "download": "ingest",
        "embed": "download",
        "dedupe": "download",
        "score": "download",
        "select": "",
        "pack": "select",
    }
    for stage, first in before.items():
        said = refused(command, folder, stage, "--recipe", "r.toml", "--root", "new")
        assert f"run `curate {first}" in said, said


def test_tables_of_an_earlier_version(command: Command, made: SmallRoot) -> None:
    """Written before downloads had the column fetch_round."""
    for unit in UNITS:
        rel = f"downloads/{unit}.parquet"
        made.root.publish_parquet(rel, made.root.read_parquet(rel).drop_columns(["fetch_round"]))
    for verb, *more in (("status",), ("report", "--output", "r.html"), ("query", "select 1")):
        said = refused(command, Path.cwd(), verb, "done", *more)
        assert "downloads lacks fetch_round" in said and "another version" in said


def test_a_table_that_is_torn(command: Command, made: SmallRoot) -> None:
    file = Path("done", "downloads", f"{UNITS[0]}.parquet")
    file.write_bytes(file.read_bytes()[:-50])
    for verb, *more in (("status",), ("query", "select 1")):
        said = refused(command, Path.cwd(), verb, "done", *more)
        assert "downloads" in said


def test_bad_sql(command: Command, made: SmallRoot) -> None:
    for sql, word in (("selct 1", "selct"), ("select nosuch from manifest", "nosuch"), ("drop table x", "read-only")):
        assert word in refused(command, Path.cwd(), "query", "done", sql)


@pytest.mark.parametrize("java_home", [None, "/nowhere"])
def test_no_java(folder: Path, java_home: str | None) -> None:
    bare = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"} | {"PATH": "/nowhere"}
    bare |= {"JAVA_HOME": java_home} if java_home else {}
    before = contents(folder)
    for call in (("run", "--recipe", "r.toml", "--root", "new"), ("demo", "--root", "new")):
        command = [sys.executable, "-m", "jobs.cli", *call]
        done = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert sentence(done.stderr).startswith("Spark needs Java 17 or later and none was found: install one")
    assert contents(folder) == before


def test_spark_submit_passes_the_status_on(folder: Path) -> None:
    """Spark joins what Python prints into its own output, and adds neither a stack of Java's nor of Python's."""
    before = contents(folder)
    job = str(REPOSITORY / "jobs" / "ingest.py")
    submit = [str(BIN / "spark-submit"), "--master", "local[1]", job]
    flags = ["--recipe", "r.toml", "--root", "new", "--set", "download.retry=1"]
    done = subprocess.run([*submit, *flags], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("curate: Unknown key 'retry'") and done.stdout.count("\n") == 1
    assert not any(word in done.stderr for word in ("Traceback", "Exception", "curate"))
    assert contents(folder) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with mount_small_disk(tmp_path / "disk", "256k") as place:
        yield place


@pytest.mark.slow
def test_a_full_disk(command: Command, folder: Path, small_disk: Path) -> None:
    """One sentence; with room again, the same command goes on and the root is sound."""
    rows = [{"URL": f"http://h.test/{os.urandom(60).hex()}.jpg", "TEXT": "x", "similarity": 0.3} for _ in range(8_000)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
    root = small_disk / "root"
    call = ("ingest", "--recipe", "r.toml", "--root", root)
    said = command.refuses(*call)
    assert "No space left on device" in said and "run the same command again" in said
    assert not list(root.glob("plans/*"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert command(*call) == 0
    assert verify(Root(root)) is None
    assert sum(len(Root(root).read_parquet(f"samples/{unit}.parquet")) for unit in Root(root).units("samples")) == 8_000


@pytest.mark.slow
def test_a_full_scratch_folder_of_spark(folder: Path, small_disk: Path) -> None:
    """Where Spark's own files have no room, its Java traces stay out of the terminal and nothing is written."""
    rows = [{"URL": f"http://h.test/{os.urandom(60).hex()}.jpg", "TEXT": "x", "similarity": 0.3} for _ in range(20_000)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
    command = [sys.executable, "-m", "jobs.ingest", "--recipe", "r.toml", "--root", "new"]
    env = environment() | {"SPARK_LOCAL_DIRS": str(small_disk)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    said = sentence(done.stderr)
    assert said.startswith("No space left on device (in Spark's scratch folder, which SPARK_LOCAL_DIRS names)")
    assert not list(folder.glob("new/plans/*"))
