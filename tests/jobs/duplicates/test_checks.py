"""What `curate dedupe` refuses before Spark is asked; none of this needs a session."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.download.withdrawn import NO_LISTS
from curation.errors import UserError
from curation.recipe.config import DedupeConfig, DownloadConfig, EmbedConfig, Recipe
from curation.storage import Root
from curation.tables import METADATA, metadata_file, vectors_file
from jobs.duplicates.arrays import remove_stale_work
from jobs.duplicates.checks import check_vectors
from jobs.duplicates.plan import plan_dedupe
from jobs.embedders import identify_model
from jobs.spark_dedupe import scan_unit
from tests.support.picture_root import fill, scene, set_vectors

RECIPE = Recipe(dedupe=DedupeConfig(min_cosine=0.9, tiers=("embedding",)))


@pytest.fixture
def embedded(root: Root) -> Root:
    """Six pictures in two units, with vectors of eight dimensions that no model has signed."""
    sink = io.BytesIO()
    scene(1).save(sink, "JPEG")
    uids = fill(root, [(f"{i}", sink.getvalue(), {}) for i in range(6)])
    set_vectors(root, dict(zip(uids, np.eye(6, 8), strict=True)))
    return root


def with_model(model: object) -> Recipe:
    return dataclasses.replace(RECIPE, embed=EmbedConfig(model=str(model)))


def signed(root: Root, model: str) -> Root:
    root.begin_stage(METADATA, {"model": model})
    return root


@pytest.mark.parametrize("min_cosine", [None, 0.9])
def test_vectors_of_another_model_are_refused(embedded: Root, min_cosine: float | None) -> None:
    signed(embedded, "clip.onnx:abcdef")
    made = Recipe(dedupe=DedupeConfig(min_cosine=min_cosine))
    with pytest.raises(UserError, match=r"embedded with clip\.onnx:abcdef .*embed\.model is efficientnet-lite0: "):
        plan_dedupe(made, embedded)


def test_a_model_counts_by_what_its_file_holds_and_by_its_name_when_it_is_gone(embedded: Root, tmp_path: Path) -> None:
    file = tmp_path / "clip_v1.onnx"
    file.write_bytes(b"123")
    signed(embedded, identify_model(str(file)))
    first = plan_dedupe(with_model(file), embedded)
    file.write_bytes(b"1234")
    with pytest.raises(UserError, match=r"clip_v1\.onnx"):
        plan_dedupe(with_model(file), embedded)
    file.unlink()
    assert plan_dedupe(with_model(file), embedded).fp == first.fp
    with pytest.raises(UserError, match=r"clip_v1\.onnx"):
        plan_dedupe(with_model(tmp_path / "clip_v2.onnx"), embedded)


def test_another_model_is_another_table_where_nobody_signed_the_vectors(embedded: Root, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"1")
    assert plan_dedupe(RECIPE, embedded).fp != plan_dedupe(with_model(tmp_path / "other.onnx"), embedded).fp
    assert plan_dedupe(RECIPE, embedded).fp == plan_dedupe(RECIPE, embedded).fp


def spoil(root: Root, unit: str, fault: str) -> None:
    vectors, metadata = vectors_file(unit), metadata_file(unit)
    array = np.load(io.BytesIO(root.read_bytes(vectors)))
    sink = io.BytesIO()
    np.save(sink, {"wide": np.ones((3, 9)), "long": np.ones((4, 8))}.get(fault, array))
    root.publish(vectors, {"empty": b"", "torn": sink.getvalue()[:-9]}.get(fault, sink.getvalue()))
    if fault == "missing":
        root.remove(vectors)
    elif fault == "metadata":
        root.publish(metadata, b"PAR1")
    elif fault == "no uids":
        root.publish_parquet(metadata, pa.table({"uid": pa.array([], pa.string())}))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "lacks 1 units: run `curate embed` first"),
        ("empty", "img_emb_{unit}.npy is no .npy file"),
        ("torn", "img_emb_{unit}.npy is truncated"),
        ("wide", "{unit} has vectors of 9 dimensions"),
        ("long", "{unit} has 4 vectors for 3 rows"),
        ("no uids", "{unit} has 3 vectors for 0 rows"),
        ("metadata", "metadata_{unit}.parquet is not a readable parquet file"),
    ],
)
def test_damaged_vectors_are_named(embedded: Root, fault: str, words: str) -> None:
    unit = embedded.units("downloads")[1]
    spoil(embedded, unit, fault)
    with pytest.raises(UserError, match=words.format(unit=unit)):
        check_vectors(embedded, plan_dedupe(RECIPE, embedded).units)


def test_scratch_of_killed_runs_goes_and_tables_stay(root: Root) -> None:
    remove_stale_work(root, "duplicates", "new")
    for name in ("old/work/sample/a.npy", "old/part-00000.parquet", "new/work/b.npy", "current.json"):
        root.publish(f"duplicates/{name}", b"x")
    remove_stale_work(root, "duplicates", "new")
    assert not root.exists("duplicates/old/work")
    assert root.exists("duplicates/old/part-00000.parquet") and root.exists("duplicates/new/work/b.npy")


def test_pictures_that_an_opt_out_list_names_are_not_compared(embedded: Root, tmp_path: Path) -> None:
    before = plan_dedupe(RECIPE, embedded)
    (tmp_path / "list.txt").write_text("host1.test\n")
    listed = dataclasses.replace(RECIPE, download=DownloadConfig(opt_out=(str(tmp_path / "list.txt"),)))
    plan = plan_dedupe(listed, embedded)
    assert plan.fp != before.fp
    rows = [
        scan_unit(embedded, unit, number, True, lists).num_rows
        for lists in (NO_LISTS, plan.lists)
        for number, unit in enumerate(plan.units)
    ]
    assert (sum(rows[:2]), sum(rows[2:])) == (6, 4)


def test_vectors_of_equal_size_with_other_values_are_compared_anew(embedded: Root) -> None:
    before = plan_dedupe(RECIPE, embedded).fp
    unit = embedded.units("downloads")[0]
    data = embedded.read_bytes(vectors_file(unit))
    embedded.publish(vectors_file(unit), data[:-1] + bytes([data[-1] ^ 1]))
    assert plan_dedupe(RECIPE, embedded).fp != before
