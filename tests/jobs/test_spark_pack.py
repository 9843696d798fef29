"""One packing by two engines: processes on this machine and Spark write the same files, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curation.errors import UserError
from curation.recipe.config import Recipe
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from curation.verify import verify
from jobs import pack, spark_pack
from jobs.spark.errors import unwrap_task_errors
from tests.support import small_root
from tests.support.demo_run import REPOSITORY
from tests.support.small_root import UNITS, SmallRoot
from tests.support.train_shards import (
    build_packable,
    create_root,
    hash_packing,
    list_kept,
    list_tars,
    pack_recipe,
    read_index,
    select_narrower,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Pack = Callable[[Recipe, Root], None]
HIDDEN = 'import sys\nsys.modules["pyspark"] = None\nsys.modules["py4j"] = None\n'


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return build_packable(root)


@pytest.fixture
def by_spark(spark: SparkSession) -> Pack:
    def run(recipe: Recipe, root: Root) -> None:
        with unwrap_task_errors():
            pack.run(spark, recipe, root)

    return run


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_bytes_per_shard": 40_000, "seed": 3},
        {"num_samples_per_shard": 1_000},
        {"captions": {"caption": 1.0, "top_caption": 3.0}, "seed": 7},
    ],
    ids=["samples", "bytes", "one shard", "captions"],
)
def test_this_machine_and_spark_write_the_same_bytes(by_spark: Pack, made: SmallRoot, options: dict[str, Any]) -> None:
    by_spark(pack_recipe(**options), made.root)
    expected, num_tars = hash_packing(made.root), len(list_tars(made.root))
    for table in ("train", "train_index"):
        made.root.remove(table)
    pack.run_here(pack_recipe(**options), made.root)
    assert hash_packing(made.root) == expected
    assert (num_tars == 1) is (options.get("num_samples_per_shard") == 1_000) and verify(made.root) is None


@pytest.mark.parametrize("options", [{}, {"num_bytes_per_shard": 40_000}])
def test_partitions_and_workers_change_no_byte(
    spark: SparkSession, made: SmallRoot, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack.run(spark, pack_recipe(**options), made.root)
    other = build_packable(create_root(tmp_path / "other"))
    monkeypatch.setattr(spark_pack, "ROWS_PER_BUCKET", 7)  # 16 buckets, each a partition, instead of one
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    try:
        pack.run(spark, pack_recipe(**options), other.root)
    finally:
        spark.conf.unset("spark.sql.adaptive.enabled")
    assert hash_packing(made.root) == hash_packing(other.root)


def test_units_without_a_column_that_others_have_are_packed_alike(by_spark: Pack, made: SmallRoot) -> None:
    rel = f"downloads/{UNITS[0]}.parquet"
    made.root.publish_parquet(rel, made.root.read_parquet(rel).drop_columns(["format"]))
    by_spark(pack_recipe(), made.root)
    expected = hash_packing(made.root)
    for table in ("train", "train_index"):
        made.root.remove(table)
    pack.run_here(pack_recipe(), made.root)
    assert hash_packing(made.root) == expected
    assert {made.units[row["uid"]]: row["format"] for row in read_index(made.root)} == {
        UNITS[0]: None,
        UNITS[1]: "jpeg",
    }


def test_what_one_began_the_other_ends(by_spark: Pack, made: SmallRoot) -> None:
    by_spark(pack_recipe(), made.root)
    before, tars = hash_packing(made.root), list_tars(made.root)
    first, last = Path(made.root.full(tars[0])), tars[-1]
    written = first.stat().st_mtime_ns
    made.root.remove("train_index/current.json")
    made.root.remove(f"train_index/{last.split('/')[1]}/{Path(last).stem}.parquet")
    pack.run_here(pack_recipe(), made.root)
    assert hash_packing(made.root) == before and first.stat().st_mtime_ns == written
    made.root.remove(last)
    pack.run_here(pack_recipe(), made.root)
    assert hash_packing(made.root) == before
    pack.run_here(pack_recipe(), made.root)
    assert first.stat().st_mtime_ns == written, "what is packed already is left alone"


def test_both_say_the_same_of_another_version(
    by_spark: Pack, made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, said = build_packable(create_root(tmp_path / "other")), list[str]()
    for run, one in ((by_spark, made), (pack.run_here, other)):
        run(pack_recipe(), one.root)
        select_narrower(one)
        capsys.readouterr()
        run(pack_recipe(), one.root)
        said.append(next(line for line in capsys.readouterr().err.splitlines() if line.startswith("pack: ")))
    assert said[0] == said[1] and " 3 added" in said[0] and " 0 removed" not in said[0]
    (log,) = [name for name in made.root.list("logs") if name.startswith("pack-")]
    assert made.root.read_json(f"logs/{log}") == other.root.read_json(f"logs/{log}")
    assert hash_packing(made.root) == hash_packing(other.root)


def test_a_sealed_root_is_sealed_alike(by_spark: Pack, made: SmallRoot) -> None:
    seal_root(made.root, summed_tables(made.root))
    ledgers = []
    for run in (by_spark, pack.run_here):
        run(pack_recipe(), made.root)
        assert verify(made.root) is None
        ledgers.append({table: dict(made.root.ledger(table)) for table in ("train", "train_index")})
        for table in ("train", "train_index"):
            made.root.remove(table)
    assert ledgers[0] == ledgers[1] and len(ledgers[0]["train"]) == len(ledgers[0]["train_index"]) + 2


def test_both_refuse_with_the_same_sentence_before_the_first_shard(by_spark: Pack, made: SmallRoot) -> None:
    empty = create_root(f"{made.root.path}-empty")
    for run in (by_spark, pack.run_here):
        with pytest.raises(UserError, match="has no selection: run `curate select` first"):
            run(pack_recipe(), empty)
        with pytest.raises(UserError, match="num_bytes_per_shard is 2,000, and one sample alone takes .* bytes"):
            run(pack_recipe(num_bytes_per_shard=2_000), made.root)
    small_root.select(made, min_aspect=1_000)
    for run in (by_spark, pack.run_here):
        with pytest.raises(UserError, match="keeps no row"):
            run(pack_recipe(), made.root)
    assert not made.root.list("train") and not made.root.list(".scratch")


def test_a_damaged_picture_ends_both_with_the_same_sentence(by_spark: Pack, made: SmallRoot) -> None:
    uid = max(list_kept(made.root))
    row = made.downloads[uid]
    shard = Path(made.root.full(row["shard"]))
    data = bytearray(shard.read_bytes())
    data[row["offset"] + 40] ^= 1
    shard.write_bytes(data)
    said = []
    for run in (by_spark, pack.run_here):
        with pytest.raises(UserError, match="are not those that were stored") as refused:
            run(pack_recipe(), made.root)
        said.append(str(refused.value))
        assert made.root.current("train") is None
    assert said[0] == said[1]


def test_pack_runs_where_there_is_neither_pyspark_nor_java(made: SmallRoot, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    (tmp_path / "r.toml").write_text("[pack]\nnum_samples_per_shard = 10\n")
    call = ["-m", "jobs.cli", "pack", "--recipe", str(tmp_path / "r.toml"), "--root", made.root.path]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": "/nowhere"}
    environment.pop("JAVA_HOME", None)
    ended = subprocess.run(
        [sys.executable, *call], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and ended.stderr.startswith("pack "), ended.stderr
    assert {row["uid"] for row in read_index(made.root)} == list_kept(made.root)
