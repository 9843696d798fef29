"""Paths of tables and what their fingerprints depend on."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curation import tables
from curation.storage import Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    found = Root(str(tmp_path / "root"))
    found.create()
    return found


def test_paths_are_those_of_the_architecture_page() -> None:
    assert tables.samples_file("ab-000001") == "samples/ab-000001.parquet"
    assert tables.raw_shard("ab-000001", "0" * 64) == f"raw/ab-000001-{'0' * 16}.tar"
    assert tables.metadata_file("ab-000001") == "embeddings/metadata/metadata_ab-000001.parquet"
    assert tables.vectors_file("ab-000001") == "embeddings/img_emb/img_emb_ab-000001.npy"
    assert tables.train_shard("f" * 12, 7) == "train/ffffffffffff/ffffffffffff-000007.tar"
    assert tables.train_index_file("f" * 12, 7) == "train_index/ffffffffffff/ffffffffffff-000007.parquet"


def test_units_with_vectors_are_named_like_those_of_other_tables(root: Root) -> None:
    root.publish_parquet(tables.metadata_file("ab-000001"), pa.table({"uid": ["0" * 32]}))
    assert tables.embedded_units(root) == []
    root.publish(tables.vectors_file("ab-000001"), b"vectors")
    assert tables.embedded_units(root) == ["ab-000001"]


def test_a_fingerprint_sees_a_file_that_is_added_and_one_of_another_size(root: Root) -> None:
    name = tables.unit_file(tables.scores_table("blur"), "ab-000001")
    root.publish_parquet(name, pa.table({"uid": ["a"]}))
    first = tables.fingerprint_table(root, "scores_blur")
    assert tables.fingerprint_table(root, "scores_blur") == first
    root.publish_parquet(name, pa.table({"uid": ["a" * 100, "b" * 50]}))
    second = tables.fingerprint_table(root, "scores_blur")
    root.publish_parquet(tables.unit_file("scores_blur", "ab-000002"), pa.table({"uid": ["a"]}))
    assert len({first, second, tables.fingerprint_table(root, "scores_blur")}) == 3


def test_of_downloads_the_end_of_each_file_counts_too(root: Root) -> None:
    root.publish(tables.downloads_file("ab-000001"), b"round 0")
    first = tables.fingerprint_table(root, "downloads")
    root.publish(tables.downloads_file("ab-000001"), b"round 1")
    assert tables.fingerprint_table(root, "downloads") != first


def test_score_tables_are_the_folders_of_scores(root: Root) -> None:
    for name in ("scores_blur", "scores_aesthetic_score", "samples"):
        root.publish_parquet(tables.unit_file(name, "ab-000001"), pa.table({"uid": ["a"]}))
    assert tables.score_tables(root) == ["scores_aesthetic_score", "scores_blur"]
