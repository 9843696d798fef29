"""The nearest pictures are those that a comparison with all of them finds."""

from __future__ import annotations

import numpy as np
import pytest

from curation.browse import neighbours
from curation.browse.desk import Desk
from curation.browse.neighbours import Best, compare, find_by_hash, find_by_vector, find_vector
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.storage import Root
from tests.curation.browse.conftest import SECONDS, Asking
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot


def read_vectors(root: Root) -> dict[str, np.ndarray]:
    found = {}
    for unit in UNITS:
        matrix = np.load(root.full(f"embeddings/img_emb/img_emb_{unit}.npy"))
        uids = root.read_parquet(f"embeddings/metadata/metadata_{unit}.parquet")["uid"].to_pylist()
        found |= dict(zip(uids, matrix.astype(np.float64), strict=True))
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("num", "chunk"), [(5, 3), (180, 8_192)])
def test_the_nearest_by_vectors_are_those_of_all_pairs(
    desk: Desk, made: SmallRoot, num: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "NUM_NEIGHBOURS", num)
    monkeypatch.setattr(neighbours, "CHUNK_ROWS", chunk)
    vectors = read_vectors(made.root)
    uid = sorted(vectors)[3]
    found = find_by_vector(desk, "embeddings", find_vector(desk, "embeddings", uid), SECONDS)
    expected = sorted(((cosine(v, vectors[uid]), u) for u, v in vectors.items()), reverse=True)[:num]
    assert [row["uid"] for row in found.rows] == [u for _, u in expected] and found.rows[0]["uid"] == uid
    assert np.allclose([row["cosine"] for row in found.rows], [c for c, _ in expected], atol=1e-3)
    assert (found.num_units, found.num_all) == (len(UNITS), len(UNITS))


def test_without_time_no_unit_is_looked_through(desk: Desk) -> None:
    found = find_by_vector(desk, "embeddings", np.ones(4), -1.0)
    assert (found.rows, found.num_units, found.num_all) == ([], 0, len(UNITS))


def test_rows_without_a_direction_are_near_to_nothing() -> None:
    matrix = np.array([[1, 0], [0, 0], [np.nan, 1], [np.inf, 1], [-1, 0]], np.float16)
    assert compare(matrix, np.array([1, 0], np.float32)).tolist() == [1, -np.inf, -np.inf, -np.inf, -1]
    best = Best()
    best.add(compare(matrix, np.array([1, 0], np.float32)), 7, 100)
    assert best.places.tolist() == [[7, 100], [7, 104]]


def test_the_nearest_by_hash_are_those_of_few_different_bits(desk: Desk, made: SmallRoot) -> None:
    hashes = {uid: int(row["phash"], 16) for uid, row in made.downloads.items() if row["phash"]}
    uid = sorted(hashes)[0]
    bits = {other: (number ^ hashes[uid]).bit_count() for other, number in hashes.items()}
    near = sorted((number, other) for other, number in bits.items() if number <= neighbours.MAX_BITS)
    assert [(row["bits"], row["uid"]) for row in find_by_hash(desk, uid).rows] == near and near[0] == (0, uid)


def test_pictures_without_vector_or_hash_are_one_sentence(desk: Desk, made: SmallRoot) -> None:
    lost = sorted(set(made.samples) - set(made.images))[0]
    for uid in (lost, "0" * 32, "o'clock"):
        with pytest.raises(UserError, match="has no vector of"):
            find_vector(desk, "embeddings", uid)
        with pytest.raises(UserError, match="no perceptual hash of"):
            find_by_hash(desk, uid)


def test_vectors_of_another_length_or_damaged_ones_are_one_sentence(root: Root) -> None:
    small_root.finish(root)
    desk = Desk(Manifest(root))
    with pytest.raises(UserError, match="has vectors of 4 numbers, and 5 are looked for"):
        find_by_vector(desk, "embeddings", np.ones(5), SECONDS)
    root.publish(f"embeddings/img_emb/img_emb_{UNITS[0]}.npy", b"none")
    with pytest.raises(UserError, match="is no .npy file"):
        find_by_vector(desk, "embeddings", np.ones(4), SECONDS)
    desk.close()


def test_the_page_is_told_what_is_near_and_how(ask: Asking, made: SmallRoot) -> None:
    uid = sorted(made.images)[0]
    assert ask("start")["embeddings"] == ["embeddings"] and ask("start")["understands"] is False
    for by, name in (("", "cosine"), ("embeddings", "cosine"), ("hash", "bits")):
        rows = ask("near", like=uid, by=by)["rows"]
        assert rows[0]["uid"] == uid and set(rows[0]["values"]) == {name}
    for asked, said in (
        ({"like": uid, "by": "embeddings_x"}, "no vectors 'embeddings_x'"),
        ({"meaning": "a dog"}, "name it by --model"),
    ):
        with pytest.raises(UserError, match=said):
            ask("near", **asked)
