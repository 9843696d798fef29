"""Duplicates by two engines: this machine by itself and Spark write the same files, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.deduplication import near as searching
from curation.errors import UserError
from curation.recipe.config import DownloadConfig, Recipe
from curation.recipe.select_config import BlocklistConfig
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from jobs import dedupe, spark_dedupe
from jobs.duplicates import hashes
from jobs.spark.errors import unwrap_task_errors
from jobs.stages import load_stages
from tests.support.demo_run import REPOSITORY
from tests.support.hashed_root import HASH, Row, draw_hash, fill, near, recipe, sha

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Dedupe = Callable[[Recipe, Root], None]
HIDDEN = 'import sys\nsys.modules["pyspark"] = None\nsys.modules["py4j"] = None\n'


def read_version(root: Root) -> dict[str, bytes]:
    """Every file of the duplicates, by its path."""
    folder = Path(root.full("duplicates"))
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def by_spark(spark: SparkSession) -> Dedupe:
    def run(recipe: Recipe, root: Root) -> None:
        with unwrap_task_errors():
            dedupe.run(spark, recipe, root)

    return run


def compare(by_spark: Dedupe, made: Recipe, root: Root) -> dict[str, Any]:
    """Run both engines and compare all that they write; the statistics."""
    by_spark(made, root)
    expected = read_version(root)
    root.remove("duplicates")
    dedupe.run_here(made, root)
    assert read_version(root) == expected
    (statistics,) = [json.loads(data) for name, data in expected.items() if name.endswith("statistics.json")]
    return dict(statistics)


PLAIN = {"entropy": 1.0}
CAPTIONS = ["A dog", " a DOG ", "a cat", "", None, "ÉTÉ", "été", "\ta dog", "ΟΔΟΣ", "οδος"]
BY_HASH = {"tiers": ("perceptual",)}
CASES: dict[str, tuple[list[Row], dict[str, Any]]] = {
    "nothing is a duplicate": ([{"sha256": sha(i), "phash": draw_hash(i), "width": 9} for i in range(6)], {}),
    "no picture came": ([{"status": "http_404"}] * 5, {}),
    "one came": ([{"sha256": sha(1), "phash": near(HASH), "width": 5, "height": 5}, {"status": "http_404"}], {}),
    "bytes and pixels": (
        [
            {"sha256": sha(1), "pixel_sha256": sha("p"), "width": 3, "height": 3},
            {"sha256": sha(1), "pixel_sha256": sha("q"), "width": 4, "height": 4},
            {"sha256": sha(2), "pixel_sha256": sha("p"), "width": 5, "height": 5},
            {"sha256": sha(3), "pixel_sha256": sha("q")},
            {"sha256": sha(1)},
            {"sha256": sha(4)},
            {"sha256": sha(4)},
            {"pixel_sha256": sha("p"), "width": 9, "height": 9},
            {"sha256": "no sum"},
            {"sha256": "no sum"},
            {"sha256": sha(5).upper()},
            {"sha256": sha(5)},
            {},
        ],
        {},
    ),
    "hashes": (
        [
            {"sha256": sha(1), "phash": near(HASH), "width": 8, "height": 8},
            {"sha256": sha(2), "phash": near(HASH), "width": 9, "height": 9},
            {"sha256": sha(3), "phash": near(HASH, 0), "width": 7, "height": 9},
            {"sha256": sha(4), "phash": near(HASH, 0, 9, 18)},
            {"sha256": sha(5), "phash": near(HASH, 0, 9, 18, 27), "width": 99, "height": 9},
            {"sha256": sha(6), "phash": near(HASH), "entropy": 3.99},
            {"sha256": sha(7), "phash": near(HASH), "entropy": float("nan")},
            {"sha256": sha(8), "phash": f"{HASH ^ 1:016x}"},
            {"sha256": sha(9), "phash": "ff", **PLAIN},
            {"sha256": sha(9), "phash": near(HASH).upper(), "entropy": 4.0},
            {"sha256": sha(10), **PLAIN},
        ],
        {},
    ),
    "an entropy that no float32 is": (
        [{"sha256": sha(i), "phash": near(HASH), "entropy": float(np.float32(4.1))} for i in range(3)],
        {"min_entropy": 4.1},
    ),
    "captions": (
        [
            {"sha256": sha(i % 2), "phash": near(HASH, *range(i % 3)), "caption": caption, "width": i, "height": 1}
            for i, caption in enumerate(CAPTIONS * 2)
        ],
        {"same_caption": True},
    ),
    "keep": (
        [
            {
                "sha256": sha(i % 2),
                "source": ["coyo", None, "laion", "", "ä"][i % 5],
                "clip_similarity": [0.0, -0.0, None, float("nan"), -1.5, float("inf")][i % 6],
                "num_bytes": [None, 5, 7][i % 3],
                "punsafe": i % 4 / 7,
            }
            for i in range(40)
        ],
        {"keep": ("source desc", "clip_similarity", "num_bytes desc", "punsafe asc", "uid desc", "source")},
    ),
    "by hash alone": ([{"sha256": sha(1), "phash": near(HASH, *range(i % 4))} for i in range(9)], BY_HASH),
    "by bytes alone": ([{"sha256": sha(i % 3), "phash": near(HASH)} for i in range(9)], {"tiers": ("exact",)}),
    "no tier": ([{"sha256": sha(1)}] * 3, {"tiers": ()}),
    "one hash often": ([{"sha256": sha(i), "phash": near(HASH), "width": i, "height": 2} for i in range(300)], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_this_machine_and_spark_write_the_same_bytes(by_spark: Dedupe, root: Root, case: str) -> None:
    rows, options = CASES[case]
    fill(root, rows)
    compare(by_spark, recipe(**options), root)


def crowd(num_rows: int) -> list[Row]:
    """Pictures whose hashes lie around one, some of them often, with two captions."""
    rng = np.random.default_rng(0)
    flips = rng.integers(0, 60, (num_rows, 2)).tolist()
    rows = [{"sha256": sha(i), "phash": near(HASH, *flips[i % 700]), "caption": "ab"[i % 2]} for i in range(num_rows)]
    return [row | {"width": int(size), "height": 1} for row, size in zip(rows, rng.permutation(num_rows), strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("same_caption", [False, True])
def test_hashes_that_crowd_are_cut_short_alike(
    by_spark: Dedupe, root: Root, monkeypatch: pytest.MonkeyPatch, same_caption: bool
) -> None:
    for module in (hashes, searching):
        monkeypatch.setattr(module, "NUM_HUBS", 2)
        monkeypatch.setattr(module, "MAX_NEIGHBOURS", 5)
    fill(root, crowd(1_500))
    statistics = compare(by_spark, recipe(same_caption=same_caption, tiers=("perceptual",)), root)
    assert len(statistics["rounds"]) > 1 and statistics["rounds"][0]["searched_again"] > 20


def test_many_files_cover_equal_ranges_of_uids(by_spark: Dedupe, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (spark_dedupe, dedupe):
        monkeypatch.setattr(module, "ROWS_PER_FILE", 7)
    fill(root, [{"sha256": sha(i % 5)} for i in range(60)], num_units=1)
    compare(by_spark, recipe(), root)
    assert len((root.current("duplicates") or {})["files"]) == 8


def test_pictures_that_a_list_names_are_not_compared(by_spark: Dedupe, root: Root, tmp_path: Path) -> None:
    fill(root, [{"sha256": sha(i // 2), "phash": draw_hash(i // 2)} for i in range(20)])
    (tmp_path / "out.txt").write_text(f"{sha(3)}\nhttp://host.test/0\n")
    (tmp_path / "block.txt").write_text(f"{draw_hash(5)}\n")
    lists = {"download": DownloadConfig(opt_out=("out.txt",)), "folder": str(tmp_path)}
    lists["blocklists"] = {"bad": BlocklistConfig(paths=("block.txt",))}
    statistics = compare(by_spark, replace(recipe(), **lists), root)
    assert statistics["pictures"] == 20 - 2 - 1 - 2


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """Rows of few values a column, so that they often agree."""
    numbers = st.integers(0, 5)
    row = st.fixed_dictionaries(
        {
            "status": st.sampled_from(["ok", "ok", "ok", "http_404"]),
            "sha256": st.none() | numbers.map(sha),
            "pixel_sha256": st.none() | numbers.map(lambda n: sha(f"p{n}")),
            "phash": st.none() | st.lists(st.integers(0, 59), max_size=4).map(lambda bits: near(HASH, *bits)),
            "entropy": st.sampled_from([None, 3.5, 4.0, 7.0, float("nan")]),
            "caption": st.sampled_from(["a", "A ", "b", None]),
            "width": st.none() | numbers,
            "height": st.just(3),
            "aesthetic": st.sampled_from([None, 1.5, 2.5, float("nan")]),
        }
    )
    return draw(st.lists(row, min_size=1, max_size=40))


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables(), same_caption=st.booleans(), data=st.data())
def test_random_tables_give_the_same_bytes(
    by_spark: Dedupe, tmp_path_factory: pytest.TempPathFactory, rows: list[Row], same_caption: bool, data: st.DataObject
) -> None:
    root = Root(tmp_path_factory.mktemp("random") / "root")
    root.create()
    fill(root, rows, data.draw(st.integers(1, 3)))
    tiers = data.draw(st.sampled_from([("exact", "perceptual"), ("perceptual",), ("exact",)]))
    keep = data.draw(st.sampled_from([("resolution desc", "uid"), ("aesthetic", "resolution"), ("uid desc",)]))
    compare(by_spark, recipe(tiers=tiers, keep=keep, same_caption=same_caption), root)


def test_a_sealed_root_is_sealed_alike_and_left_alone_when_done(by_spark: Dedupe, root: Root) -> None:
    fill(root, CASES["hashes"][0])
    seal_root(root, summed_tables(root))
    ledgers = []
    for run in (by_spark, dedupe.run_here):
        run(recipe(), root)
        ledgers.append(dict(root.ledger("duplicates")))
        before = root.record()
        dedupe.run_here(recipe(), root)
        assert root.record() == before
        root.remove("duplicates")
    assert ledgers[0] == ledgers[1] and len(ledgers[0]) == 3


KILLED = """
import os, signal, sys
from curation.storage import Root
from jobs import dedupe
from tests.support.hashed_root import recipe
Root.publish_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
dedupe.run_here(recipe(), Root(sys.argv[1]))
"""


def test_a_kill_leaves_nothing_that_the_next_run_would_not_mend(root: Root) -> None:
    fill(root, CASES["hashes"][0])
    dedupe.run_here(recipe(), root)
    expected = read_version(root)
    root.remove("duplicates")
    ended = subprocess.run([sys.executable, "-c", KILLED, root.path], cwd=REPOSITORY, check=False)
    assert ended.returncode == -signal.SIGKILL and root.current("duplicates") is None
    assert any(name.endswith(".parquet") for name in read_version(root))
    dedupe.run_here(recipe(), root)
    assert read_version(root) == expected and not root.list(".scratch")


def test_both_refuse_with_the_same_sentence(by_spark: Dedupe, root: Root) -> None:
    for run in (by_spark, dedupe.run_here):
        with pytest.raises(UserError, match="units left to download"):
            run(recipe(), root)
    assert not root.exists("duplicates") and not root.list(".scratch")


@pytest.mark.parametrize(
    ("options", "here"),
    [
        ({}, True),
        ({"tiers": ("exact",)}, True),
        ({"tiers": ("exact", "embedding")}, False),
        ({"against": ("set",)}, False),
    ],
)
def test_vectors_and_evaluation_sets_are_left_to_spark(options: dict[str, Any], here: bool) -> None:
    assert dedupe.runs_here(recipe(**options)) is here
    (stage,) = load_stages(["dedupe"])
    assert stage.runs_on_spark(recipe(**options)) is not here


def test_dedupe_runs_where_there_is_neither_pyspark_nor_java(root: Root, tmp_path: Path) -> None:
    fill(root, CASES["hashes"][0])
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    (tmp_path / "r.toml").write_text('[dedupe]\ntiers = ["exact", "perceptual"]\n')
    call = ["-m", "jobs.cli", "dedupe", "--recipe", str(tmp_path / "r.toml"), "--root", root.path]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": "/nowhere"}
    environment.pop("JAVA_HOME", None)
    ended = subprocess.run(
        [sys.executable, *call], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and ended.stderr.startswith("dedupe "), ended.stderr
    assert (root.current("duplicates") or {})["files"]
