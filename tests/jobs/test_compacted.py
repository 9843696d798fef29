"""Stages on a root whose units were joined make the same bytes as on one with small files, also in a later round."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curation.compaction.compact import compact, undo
from curation.recipe.config import load_recipe
from curation.report import describe_status
from curation.storage import Root
from curation.sums.packed import is_packed
from curation.verify import verify
from jobs import download, ingest, pack, score, selection
from tests.support.removal import contents
from tests.support.small_web import pictures, recipe, serve

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow


def read_all(root: Root) -> dict[str, bytes]:
    """Every file that a ledger names, as its readers get it."""
    root.record()
    named = {rel for table in root.record().sums or {} for rel in root.ledger(table)}
    return {rel: root.read_whole(rel) for rel in named if not is_packed(rel)}


def test_later_stages_and_a_later_round_make_the_same_bytes(spark: SparkSession, tmp_path: Path) -> None:
    refusing = True

    def web(host: str, path: str, asked: int) -> tuple[int, bytes]:
        return (503, b"") if refusing and path in ("/7.jpg", "/14.jpg", "/28.jpg") else pictures(host, path, asked)

    plain, joined = Root(tmp_path / "plain"), Root(tmp_path / "joined")
    with serve(web) as (port, _):
        file = recipe(tmp_path, port, 90)
        first, second = (load_recipe(file, [f"download.rounds={number}"]) for number in (0, 1))
        ingest.run_here(first, plain)
        download.run(spark, first, plain)
        shutil.copytree(plain.path, joined.path)
        for root in (plain, joined):
            if root is joined:
                assert compact(root).num_packed == 2  # samples and downloads
            score.run(spark, first, root)
            selection.run(spark, first, root)
            pack.run(spark, first, root)
        assert read_all(joined) == read_all(plain)
        refusing = False
        for root in (plain, joined):
            if root is joined:
                assert compact(root).num_packed == 0  # score and select keep to packed files
            before = root.current("train")
            download.run(spark, second, root)
            score.run(spark, second, root)
            selection.run_here(second, root)
            pack.run(spark, second, root)
            assert root.current("train") != before
    assert compact(joined).num_packed > 0
    assert read_all(Root(joined.path)) == read_all(Root(plain.path))
    assert verify(Root(joined.path)) is None and verify(Root(plain.path)) is None
    assert {**describe_status(joined), "root": ""} == {**describe_status(plain), "root": ""}
    shutil.rmtree(Path(joined.path, "samples", "packed"))
    ingest.run_here(second, joined)
    assert read_all(Root(joined.path)) == read_all(Root(plain.path))
    undo(joined)
    found, wanted = contents(Path(joined.path)), contents(Path(plain.path))
    # What lies in the folder of an old version is nobody's any more; it stays packed until `curate gc` deletes it.
    current = f"selection/{(plain.current('selection') or {})['fingerprint']}/"
    old = {name for name in {*found, *wanted} if name.startswith("selection/") and not name.startswith(current)}
    logs = {name for name in {*found, *wanted} if name.startswith("logs/")} | old - {"selection/current.json"}
    assert {n: found[n] for n in found.keys() - logs} == {n: wanted[n] for n in wanted.keys() - logs}
