"""Which rows a preview compares."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pyspark.sql import SparkSession

from curation.storage import Root
from curation.tables import metadata_file, vectors_file
from jobs.duplicates import preview_sample
from jobs.duplicates.preview_sample import (
    NEIGHBOUR,
    Probes,
    UnitPictures,
    draw_probes,
    draw_sample,
    find_neighbourhoods,
    take_nearest,
)
from tests.support.picture_root import Fetched, fill, scene, set_vectors

DIM = 16


def encoded(seed: int, size: int = 24) -> bytes:
    sink = io.BytesIO()
    scene(seed, size).save(sink, "PNG")
    return sink.getvalue()


def twins(root: Root, count: int) -> dict[str, int]:
    """`count` pictures and as many near copies of them, by vector and hash; uid → number, twins sharing theirs."""
    pictures: list[Fetched] = [(f"{i}", encoded(i % count, 24 if i < count else 40), {}) for i in range(2 * count)]
    uids = fill(root, pictures, num_units=6)
    vectors = np.random.default_rng(0).standard_normal((count, DIM))
    together = np.concatenate([vectors, vectors + 0.01])
    set_vectors(root, dict(zip(uids, together, strict=True)))
    return {uid: i % count for i, uid in enumerate(uids)}


@pytest.mark.parametrize("embedded", [True, False])
def test_of_a_large_root_copies_come_with_their_originals(
    spark: SparkSession, root: Root, monkeypatch: pytest.MonkeyPatch, embedded: bool
) -> None:
    """A sixth of the pictures, drawn one by one, would hold a sixth of their twins."""
    number_of = twins(root, 60)
    monkeypatch.setattr(preview_sample, "MAX_ROWS", 20)
    monkeypatch.setattr(preview_sample, "NUM_PROBES", 2)
    table, vectors, how = draw_sample(spark, root, embedded, 0.0)
    uids = table["uid"].to_pylist()
    assert 8 <= len(uids) == len(set(uids)) <= 20 and uids == sorted(uids)
    assert how.startswith(
        f"the {5 if embedded else 10} nearest to each of {2 if embedded else 0} by embedding and of 2"
    )
    numbers = [number_of[uid] for uid in uids]
    with_twin = sum(numbers.count(number) == 2 for number in numbers)
    assert with_twin >= 0.6 * len(uids)
    assert (vectors is not None) == embedded
    if vectors is not None:
        stored = dict[str, np.ndarray]()
        for unit in root.units("downloads"):
            names = root.read_parquet(metadata_file(unit))["uid"].to_pylist()
            stored |= dict(zip(names, np.load(io.BytesIO(root.read_bytes(vectors_file(unit)))), strict=True))
        assert np.array_equal(vectors, np.array([stored[uid] for uid in uids], np.float32))
    again = draw_sample(spark, root, embedded, 0.0)[0]
    assert again.equals(table)


def test_the_nearest_are_one_of_each_content() -> None:
    found = np.array([(3, 0, 0, 7), (1, 1, 5, 8), (2, 0, 1, 7), (1, 0, 9, 8), (5, 0, 2, 9), (4, 0, 3, 6)], NEIGHBOUR)
    assert take_nearest(found, 3)[["unit", "row"]].tolist() == [(0, 9), (0, 1), (0, 3)]
    assert len(take_nearest(found[:0], 3)) == 0


@pytest.mark.parametrize("count", [1, 4, 1_000])
def test_neighbourhoods_are_those_of_all_rows_sorted_by_distance(spark: SparkSession, root: Root, count: int) -> None:
    twins(root, 30)
    units = root.units("downloads")
    rng = np.random.default_rng(1)
    probes = rng.standard_normal((3, DIM)).astype(np.float32)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    pictures = [UnitPictures(root, number, unit, True, 0.0) for number, unit in enumerate(units)]
    hashes = np.concatenate([unit.hashes[unit.telling] for unit in pictures])[:2]
    found = find_neighbourhoods(spark, root, units, Probes(vectors=probes, hashes=hashes), count, 0.0)
    expected = set[tuple[int, int]]()
    places = [(unit.number, int(row)) for unit in pictures for row in unit.rows]
    vectors = np.concatenate([unit.vectors(np.arange(len(unit.rows))) for unit in pictures])
    cosines = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ probes.T
    for probe in range(len(probes)):
        expected |= {places[i] for i in np.argsort(-cosines[:, probe], kind="stable")[:count]}
    all_hashes = np.concatenate([unit.hashes for unit in pictures])
    for probe in hashes:
        distances = np.bitwise_count(all_hashes ^ probe)
        telling = [i for i in np.argsort(distances, kind="stable").tolist() if is_telling(pictures, places[i])]
        expected |= {places[i] for i in telling[:count]}
    assert set(zip(found["unit"].tolist(), found["row"].tolist(), strict=True)) == expected


def is_telling(pictures: list[UnitPictures], place: tuple[int, int]) -> bool:
    unit = pictures[place[0]]
    return place[1] in unit.rows[unit.telling]


def test_probes_are_the_same_each_time_and_have_a_direction(root: Root) -> None:
    twins(root, 30)
    units = root.units("downloads")
    probes = draw_probes(root, units, True, 0.0)
    again = draw_probes(root, units, True, 0.0)
    assert np.array_equal(probes.vectors, again.vectors) and np.array_equal(probes.hashes, again.hashes)
    assert np.allclose(np.linalg.norm(probes.vectors, axis=1), 1, atol=1e-3)
    assert 0 < len(probes.vectors) <= preview_sample.NUM_PROBES
    assert len(draw_probes(root, units, False, 0.0).vectors) == 0
