"""One ingest by two engines: DuckDB with processes on this machine and Spark write the same files, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from curation.download.tombstones import Tombstones
from curation.errors import UserError
from curation.forget import forget
from curation.forget.requests import parse_requests
from curation.ingest.engine import UnitTarget, UnitWork
from curation.ingest.unit import REASONS
from curation.metadata import rows as metadata_rows
from curation.metadata.inputs import Input
from curation.plan import Spread, read_plans
from curation.recipe.config import Recipe, SourceConfig, load_recipe
from curation.schema import RejectReason
from curation.storage import Root
from curation.verify import verify
from jobs import ingest
from tests.support import removal
from tests.support.demo_run import REPOSITORY
from tests.support.ingest_sets import ingest_here, read_rows, write_sets
from tests.support.metadata_folders import MadeFile, metadata_folders, write_folder

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def ingest_by_both(spark: SparkSession, recipe: Recipe, folder: Path) -> None:
    """Ingest into the roots `spark` and `here` below `folder`, which hold the same afterwards."""
    ingest.run(spark, recipe, Root(folder / "spark"))
    ingest_here(recipe, Root(folder / "here"), threads=2)
    expected, found = removal.contents(folder / "spark"), removal.contents(folder / "here")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.slow
def test_both_write_the_same_bytes(spark: SparkSession, tmp_path: Path) -> None:
    """Several kinds of files, conditions, repeats within and across plans, domains in several units, removals, and
    units that are made again.
    """
    recipe = load_recipe(write_sets(tmp_path / "meta"))
    first, here = replace(recipe, sources=recipe.sources[:2]), tmp_path / "here"
    ingest_by_both(spark, first, tmp_path)
    ingest_by_both(spark, recipe, tmp_path)
    one, two = read_plans(Root(here))
    assert all(one["totals"][reason] for reason in ("no_url", "where", "repeated", "not_text"))
    assert two["totals"]["malformed"] and two["totals"]["repeated"]
    assert len(one["large_domains"]) > 1 and two["large_domains"]
    assert verify(Root(here)) is None

    gone = [row["uid"] for row in read_rows(Root(here), "samples")[:3]]
    for name in ("spark", "here"):
        asked = parse_requests(uids=gone, hosts=["h3.example"])
        assert forget(Root(tmp_path / name), asked, reason="request", date=removal.DATE) is not None
        for table in ("samples", "rejects"):
            for file in sorted((tmp_path / name / table).glob("*.parquet"))[::2]:
                file.unlink()
    ingest_by_both(spark, recipe, tmp_path)
    assert verify(Root(here)) is None
    totals = Counter(row["reason"] for row in read_rows(Root(here), "rejects"))
    assert totals.keys() == set(REASONS)
    assert totals[RejectReason.FORGOTTEN] > len(gone)


@pytest.mark.slow
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(metadata_folders())
def test_both_make_the_same_of_a_random_folder(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, files: list[MadeFile]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    pattern = write_folder(folder / "meta", files)
    recipe, said = Recipe(sources=(SourceConfig(name="m", paths=(pattern,)),)), list[str]()
    for name, run in (("spark", partial(ingest.run, spark)), ("here", ingest.run_here)):
        try:
            run(recipe, Root(folder / name))
            said.append("")
        except UserError as error:
            said.append(str(error))
    assert said[0] == said[1]
    assert removal.contents(folder / "spark") == removal.contents(folder / "here")


def describe_query(frame: DataFrame) -> str:
    """All plans of the query, logical and physical, as Spark's Java side knows them."""
    return str(frame._jdf.queryExecution().toString())


def test_spark_is_handed_no_file_however_many_there_are(spark: SparkSession, root: Root) -> None:
    from jobs import spark_ingest
    from jobs.spark.slices import FILES_PER_TASK

    target = UnitTarget(root=root, batch="0a1b2c3e", named=frozenset(), tombstones=Tombstones())
    files = [f"samples/0a1b2c3d-{number:06d}.parquet" for number in range(10_000)]
    work = UnitWork(target=target, spread=Spread(num_shared=1, placed={}), earlier=files)
    earlier = spark_ingest.read_earlier_uids(spark, work)
    assert earlier is not None and earlier.inputFiles() == []
    assert earlier.rdd.getNumPartitions() == 10_000 // FILES_PER_TASK
    described = describe_query(earlier)
    assert "0a1b2c3d" not in described and "parquet" not in described and len(described) < 10_000

    columns = {"url": ("url",), "caption": ("text",)}
    items = [
        Input(
            source="m", path=f"/meta/part-{number:05d}.parquet", format="pairs", columns=columns, mapped=False,
            fingerprint="", num_rows=1_000, parts=(1_000,),
        )
        for number in range(1_000)
    ]  # fmt: skip
    rows = spark_ingest.normalise(spark, items)
    assert rows.rdd.getNumPartitions() <= 1_000_000 // metadata_rows.MIN_ROWS, "tasks count rows and not files"
    assert "part-0" not in describe_query(rows) and len(describe_query(rows)) < 20_000


def test_ingest_runs_where_there_is_neither_java_nor_pyspark(tmp_path: Path) -> None:
    file = write_sets(tmp_path / "meta")
    (tmp_path / "sitecustomize.py").write_text(
        'import sys\nsys.modules["pyspark"] = None\nsys.modules["py4j"] = None\n'
    )
    call = [sys.executable, "-m", "jobs.cli", "ingest", "--recipe", str(file), "--root", str(tmp_path / "root")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": "/nowhere"}
    ended = subprocess.run(call, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert verify(Root(tmp_path / "root")) is None
