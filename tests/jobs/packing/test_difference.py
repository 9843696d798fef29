"""What a second packing changed is counted by tasks: the driver reads no row of what it packs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from curation.recipe.config import PackConfig, Recipe
from curation.schema import uid
from curation.storage import Root
from jobs import pack
from jobs.packing.difference import count_difference
from tests.support import small_root

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def publish(root: Root, version: str, numbers: Iterable[int], num_files: int) -> list[str]:
    """Index files of one version with a uid for each of `numbers`, spread over the files; their paths."""
    uids = [uid(f"https://a.test/{number}.jpg", None) for number in numbers]
    files = [f"train_index/{version}/{version}-{number:06d}.parquet" for number in range(num_files)]
    for number, name in enumerate(files):
        root.publish_parquet(name, pa.table({"uid": pa.array(uids[number::num_files], pa.string())}))
    return files


def test_samples_are_counted_as_added_removed_or_both(spark: SparkSession, root: Root) -> None:
    before, after = publish(root, "a" * 12, range(300), 20), publish(root, "b" * 12, range(100, 350), 3)
    counts = count_difference(spark, root, before, after)
    assert counts == {"num_samples": 250, "num_added": 50, "num_removed": 100}
    assert count_difference(spark, root, after, after) == {"num_samples": 250, "num_added": 0, "num_removed": 0}


def test_files_of_the_version_before_that_are_gone_count_as_empty(spark: SparkSession, root: Root) -> None:
    before, after = publish(root, "a" * 12, range(40), 4), publish(root, "b" * 12, range(40), 1)
    root.remove(before[1])
    assert count_difference(spark, root, before, after) == {"num_samples": 40, "num_added": 10, "num_removed": 0}
    assert count_difference(spark, root, [], after)["num_added"] == 40


def test_the_driver_reads_no_row_of_samples_downloads_selection_or_index(
    spark: SparkSession, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_root.build(root, 60)
    small_root.select(made)
    read_by_driver = list[str]()
    read_parquet = Root.read_parquet

    def note(this: Root, rel: str, *arguments: Any, **options: Any) -> pa.Table:
        read_by_driver.append(rel)
        return read_parquet(this, rel, *arguments, **options)

    monkeypatch.setattr(Root, "read_parquet", note)  # in this process: Spark's workers are others
    pack.run(spark, Recipe(pack=PackConfig(num_samples_per_shard=10)), root)
    pack.run(spark, Recipe(pack=PackConfig(num_samples_per_shard=10, seed=1)), root)
    assert not [rel for rel in read_by_driver if not rel.startswith("scores_")]
    monkeypatch.undo()
    current = root.current("train_index")
    assert current is not None
    assert root.read_json(f"logs/pack-{current['fingerprint']}.json")["num_added"] == 0
