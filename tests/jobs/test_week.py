"""A scripted week: after each day the root is as a run from nothing makes it, or untouched and a sentence says why."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.storage import Root
from tests.support.command import Command
from tests.support.demo_run import files
from tests.support.small_root import picture
from tests.support.small_web import Answer, serve

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
NUM_PICTURES = 30
"""Rows after the first so many show the pictures of earlier rows again."""
FUNNEL_LINE = re.compile(r"^( *)(?:- )?(\S+) +([\d,]+) +[\d.]+ %", re.MULTILINE)


def answer(host: str, path: str, asked: int) -> Answer:
    """Row N's picture; every tenth row's is gone."""
    number = int(path.strip("/").partition(".")[0] or 0)
    return (404, b"") if number % 10 == 9 else (200, draw(number % NUM_PICTURES))


def draw(number: int) -> bytes:
    return picture(number, 40 + number % 24, 32)


def write_batch(folder: Path, number: int, rows: range) -> None:
    table = [
        {"URL": f"http://h{i % 5}.site{i % 5}.test/{i}.jpg", "TEXT": f"caption {i}", "similarity": 0.3} for i in rows
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / f"part-{number}.parquet")


class Curator:
    """One who runs the same recipe on one root all week; `settings` is what has been changed in it so far."""

    def __init__(self, folder: Path, port: int, command: Command) -> None:
        self.folder, self.metadata, self.command = folder, folder / "metadata", command
        self.root = folder / "root"
        self.num_fresh = 0
        self.settings: dict[str, str] = {}
        self.metadata.mkdir(parents=True)
        write_batch(self.metadata, 0, range(24))
        (self.metadata / "recipe.toml").write_text(f"""
            [[sources]]
            name = "laion"
            format = "laion2b"
            paths = ["part-*.parquet"]
            [download]
            image_size = 32
            retries = 0
            timeout_s = 60
            first_byte_timeout_s = 60
            connect_timeout_s = 60
            allow_addresses = ["127.0.0.0/8"]
            connect_to = {{"*.test" = "127.0.0.1:{port}"}}
            num_rows_per_unit = 10
            [dedupe]
            min_cosine = 0.96
            [filters]
            blur = {{}}
            [rules]
            deduplicated = "duplicate_of is null"
            wide = "width >= 45"
            [pack]
            num_samples_per_shard = 8
        """)

    def words(self, root: Path, **settings: str) -> list[str]:
        """`curate run` on `root`, with `settings` besides; `__` stands for the dot of a setting's name."""
        chosen = self.settings | {key.replace("__", "."): value for key, value in settings.items()}
        flags = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        return ["run", "--recipe", str(self.metadata / "recipe.toml"), "--root", str(root), *flags]

    def run(self, root: Path | None = None) -> None:
        assert self.command(*self.words(root or self.root)) == 0, self.command.err

    def is_refused(self, *words: object) -> str:
        """The one sentence with which a command ends, with status 2 and without changing a byte of the root."""
        before = read_tables(self.root)
        assert self.command(*words) == 2
        *earlier, said = self.command.err.splitlines()
        assert said.startswith("curate: ") and not any("Traceback" in line for line in earlier), self.command.err
        assert read_tables(self.root) == before
        return said

    def read(self, root: Path) -> tuple[dict[str, int], list[bytes]]:
        """The counts of the funnel and the train shards, in order; status and verify have nothing to say."""
        assert self.command("status", root) == 0, self.command.err
        assert "run `curate" not in self.command.out
        counts = count_funnel(self.command.out)
        assert self.command("verify", "--all", root) == 0, self.command.err
        current = Root(root).current("train") or {}
        tars = [rel for rel in current["files"] if rel.endswith(".tar")]
        return counts, [(root / rel).read_bytes() for rel in sorted(tars)]

    def agrees_with_a_run_from_nothing(self) -> None:
        """The root has the counts and, byte for byte, the train shards of a root that began with today's inputs."""
        self.num_fresh += 1
        fresh = self.folder / f"fresh-{self.num_fresh}"
        self.run(fresh)
        counts, shards = self.read(self.root)
        expected, others = self.read(fresh)
        assert [counts[name] for name in ("metadata", "samples", "kept", "packed")] == [
            expected[name] for name in ("metadata", "samples", "kept", "packed")
        ]
        assert shards == others
        shutil.rmtree(fresh)


def count_funnel(text: str) -> dict[str, int]:
    """The counts of the stages. Asserts that the rows a stage loses are the difference to the next one."""
    counts: dict[str, int] = {}
    left = -1
    for indent, name, count in FUNNEL_LINE.findall(text):
        number = int(count.replace(",", ""))
        if indent:
            left -= number
            assert left >= 0, text
        else:
            assert left in (-1, number), text
            counts[name] = left = number
    return counts


def read_tables(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files(folder).items()}


@pytest.fixture
def curator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Curator]:
    with serve(answer) as (port, _):
        yield Curator(tmp_path, port, Command(capsys))


def test_each_day_of_a_week_ends_as_a_run_from_nothing_or_changes_nothing(
    spark: SparkSession, curator: Curator
) -> None:
    for day in (
        begin,
        damage_units,
        opt_out,
        add_a_batch,
        run_twice_at_once,
        ask_for_another_size,
        change_the_cosine,
        move_folders,
    ):
        day(curator)


def begin(curator: Curator) -> None:
    curator.run()
    counts, shards = curator.read(curator.root)
    assert counts["metadata"] == 24 and counts["pictures"] == 22 and counts["packed"] > 8 and len(shards) > 1
    before = read_tables(curator.root)
    curator.run()
    assert read_tables(curator.root) == before


def opt_out(curator: Curator) -> None:
    (curator.metadata / "opt-out.txt").write_text("h1.site1.test\nhttp://h0.site0.test/20.jpg\n")
    curator.settings["download.opt_out"] = '["opt-out.txt"]'
    curator.run()
    curator.agrees_with_a_run_from_nothing()


def add_a_batch(curator: Curator) -> None:
    write_batch(curator.metadata, 1, range(24, 60))
    curator.run()
    curator.agrees_with_a_run_from_nothing()


def run_twice_at_once(curator: Curator) -> None:
    """The second user waits for the first one's stages, or finds them done."""
    write_batch(curator.metadata, 2, range(60, 80))
    command = [sys.executable, "-m", "jobs.cli", *curator.words(curator.root)]
    logs = [curator.folder / f"user-{number}.log" for number in range(2)]
    users = []
    for log in logs:
        with log.open("w") as sink:
            users.append(subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL))
    assert [user.wait(900) for user in users] == [0, 0], [log.read_text()[-3_000:] for log in logs]
    assert any("another run is at work on" in log.read_text() for log in logs)
    curator.agrees_with_a_run_from_nothing()


def ask_for_another_size(curator: Curator) -> None:
    said = curator.is_refused(*curator.words(curator.root, download__image_size="48"))
    assert "image_size" in said and "new root" in said


def change_the_cosine(curator: Curator) -> None:
    curator.settings["dedupe.min_cosine"] = "0.9"
    _, *words = curator.words(curator.root)
    assert curator.command("dedupe", *words) == 0, curator.command.err
    stale = "selection was made from other duplicates than the root has now: run `curate select`."
    assert curator.command("status", curator.root) == 0
    assert stale in curator.command.out
    assert curator.command("verify", curator.root) == 1
    assert stale in curator.command.err
    assert curator.is_refused("pack", *words).endswith(stale)
    curator.run()
    curator.agrees_with_a_run_from_nothing()


def move_folders(curator: Curator) -> None:
    before = read_tables(curator.root)
    curator.metadata = curator.metadata.rename(curator.folder / "archive")
    curator.root = curator.root.rename(curator.folder / "moved")
    curator.run()
    assert read_tables(curator.root) == before
    curator.read(curator.root)


def damage_units(curator: Curator) -> None:
    before, root = read_tables(curator.root), Root(curator.root)
    damaged = [f"{table}/{root.list(table, '.parquet')[0]}" for table in ("samples", "downloads", "scores_blur")]
    damaged.append(next(rel for rel in (root.current("train") or {})["files"] if rel.endswith(".tar")))
    for rel in damaged:
        with open(curator.root / rel, "r+b") as file:
            file.truncate(len(before[rel]) // 2)
        assert curator.command("verify", curator.root) == 1
        assert rel in curator.command.err and "delete it and run `curate" in curator.command.err
        said = curator.is_refused(*curator.words(curator.root))
        assert rel in said and "delete it and run `curate" in said
        (curator.root / rel).unlink()
        curator.run()
        assert read_tables(curator.root) == before
    curator.read(curator.root)
