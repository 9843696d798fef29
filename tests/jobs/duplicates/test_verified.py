"""The second look at pairs; tests/jobs/test_dedupe.py has what it decides, test_graph.py which pairs it is for."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from curation.storage import Root
from jobs.duplicates import verified
from jobs.duplicates.verified import PictureVerifier
from jobs.embed import read_stored_picture
from tests.support import small_root
from tests.support.small_root import UNITS

TIER = 3


@pytest.fixture
def verifier(spark: SparkSession, root: Root) -> PictureVerifier:
    """Of twelve pictures of two units; every pair is said to agree."""
    made = small_root.build(root)
    some = sorted(made.images)[:12]
    rows = [(row, uid, UNITS.index(made.units[uid])) for row, uid in enumerate(some)]
    frame = spark.createDataFrame(rows, "row bigint, uid string, unit int")
    return PictureVerifier(spark, root, [*UNITS], frame, TIER, min_correlation=-1.0, max_doubtful=5)


def all_pairs(verifier: PictureVerifier) -> pa.Table:
    pairs = list(itertools.combinations(range(verifier.rows.count()), 2))
    return pa.table({name: [pair[side] for pair in pairs] for side, name in enumerate(("left", "right"))})


def edges_of(edges: pa.Table) -> list[dict[str, Any]]:
    return sorted(edges.to_pylist(), key=lambda edge: (edge["left"], edge["right"]))


@pytest.mark.slow
def test_driver_and_tasks_see_the_same(
    spark: SparkSession, verifier: PictureVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In frames; on the driver; by the driver, which knows no places and sends runs to tasks; and sent on by it."""
    verifier.min_correlation, pairs = 0.17, all_pairs(verifier)
    wanted = edges_of(verifier.look(spark.createDataFrame(pairs), len(pairs)).toArrow())
    assert 1 < len(wanted) < len(pairs) and {edge["tier"] for edge in wanted} == {TIER}
    assert edges_of(verifier.look_here(pairs)) == wanted
    verifier._fingerprints = {}
    del verifier._places
    monkeypatch.setattr(verified, "MAX_LOCAL_ROWS", 0)
    monkeypatch.setattr(verified, "WORK_PER_TASK", 3)
    assert edges_of(verifier.look_here(pairs)) == wanted
    monkeypatch.setattr(verified, "MAX_LOCAL_PAIRS", len(pairs) - 1)
    assert edges_of(verifier.look_here(pairs)) == wanted
    assert verifier.num_looks == 4 * len(pairs)


def test_a_picture_is_read_once_while_it_is_remembered(
    verifier: PictureVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[str]()

    def note(root: Root, row: dict[str, Any]) -> bytes:
        read.append(row["uid"])
        return read_stored_picture(root, row)

    monkeypatch.setattr(verified, "read_stored_picture", note)
    pairs = pa.table({"left": [0, 1, 0], "right": [1, 2, 3]})
    assert len(verifier.look_here(pairs)) == 3 and len(set(read)) == len(read) == 4
    assert len(verifier.look_here(pairs.slice(0, 2))) == 2 and len(read) == 4
    monkeypatch.setattr(verified, "MAX_LOCAL_PAIRS", 2)
    verifier.look_here(pa.table({"left": [0], "right": [4]}))
    assert len(read) == 5 and len(verifier._fingerprints) == 2, "it remembers those of two pairs at most, and the last"


def test_a_picture_that_cannot_be_decoded_has_no_edge(
    spark: SparkSession, verifier: PictureVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "read_stored_picture", lambda *_: b"no picture")
    pairs = pa.table({"left": [0], "right": [1]})
    assert len(verifier.look_here(pairs)) == 0
    monkeypatch.setattr(verified, "read_stored_picture", lambda *_: pytest.fail("it is not read again"))
    assert len(verifier.look_here(pairs)) == 0
