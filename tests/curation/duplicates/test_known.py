import numpy as np
import pyarrow as pa
import pytest

from curation.duplicates.clustering import normalise
from curation.duplicates.known import SCHEMA, KnownPictures
from curation.errors import UserError

DIM = 8
HALF = 0x00000000FFFFFFFF
"""A hash with half of its bits set, as pictures with detail have."""


def known(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([{"name": "coco", **row} for row in rows], SCHEMA)


def asked(*rows: dict[str, object]) -> pa.Table:
    schema = pa.schema(
        [
            ("row", pa.int64()),
            ("place", pa.int32()),
            ("sha256", pa.string()),
            ("pixel_sha256", pa.string()),
            ("phash", pa.int64()),
            ("entropy", pa.float32()),
        ]
    )
    return pa.Table.from_pylist([{"row": 100 + i, **row} for i, row in enumerate(rows)], schema)


def matches(of: KnownPictures, rows: pa.Table, vectors: np.ndarray | None = None) -> dict[int, tuple[str, float]]:
    found = of.match(rows, vectors, 6, 4.0, 0.9 if vectors is not None else None).to_pylist()
    assert all(match["tier"] == "decontamination:coco" for match in found)
    return {match["row"]: (match["key"], match["similarity"]) for match in found}


def test_bytes_go_before_pixels_before_hashes_before_vectors() -> None:
    near = normalise(np.eye(DIM)[:1] + 0.05)[0]
    of = KnownPictures(
        [
            known({"key": "bytes", "sha256": "s"}, {"key": "pixels", "sha256": "t", "pixel_sha256": "p"}),
            known({"key": "hash", "phash": HALF}, {"key": "vector", "vector": np.eye(DIM)[0]}),
        ]
    )
    everything = {"place": 0, "sha256": "s", "pixel_sha256": "p", "phash": HALF ^ (1 | 1 << 40), "entropy": 7.0}
    rows = asked(*({k: v for k, v in everything.items() if k not in gone} for gone in GONE))
    assert [(key, round(similarity, 2)) for key, similarity in matches(of, rows, near[None]).values()] == [
        ("bytes", 1.0),
        ("pixels", 1.0),
        ("hash", 0.97),
        ("vector", 0.99),
    ]


GONE = [
    (),
    ("sha256",),
    ("sha256", "pixel_sha256"),
    ("sha256", "pixel_sha256", "phash"),
    ("sha256", "pixel_sha256", "phash", "place"),
]
"""What each asked row lacks; the last one has nothing to be recognised by."""


def test_hashes_of_plain_pictures_say_nothing() -> None:
    of = KnownPictures([known({"key": "a", "phash": HALF}, {"key": "b", "phash": 1})])
    rows = asked({"phash": HALF, "entropy": 3.0}, {"phash": 1, "entropy": 7.0}, {"phash": HALF, "entropy": 7.0})
    assert list(matches(of, rows)) == [102]


def test_vectors_without_a_direction_match_nothing_on_either_side() -> None:
    nan, zero = np.full(DIM, np.nan), np.zeros(DIM)
    of = KnownPictures(
        [known({"key": "n", "vector": nan}, {"key": "z", "vector": zero}, {"key": "e", "vector": np.eye(DIM)[2]})]
    )
    vectors = np.array([nan, zero, np.eye(DIM)[2]])
    rows = asked({"place": 0}, {"place": 1}, {"place": None}, {"place": 2})
    assert list(matches(of, rows, vectors)) == [103]


def test_many_known_vectors_are_searched_in_clusters() -> None:
    vectors = normalise(np.random.default_rng(0).standard_normal((6_000, 32)))
    of = KnownPictures([known(*({"key": f"{i:04d}", "vector": v} for i, v in enumerate(vectors)))])
    noise = np.random.default_rng(1).standard_normal((500, 32))
    copies = normalise(vectors[:500] + 0.02 * noise)
    found = matches(of, asked(*({"place": i} for i in range(500))), copies)
    right = sum(found.get(100 + i, ("", 0))[0] == f"{i:04d}" for i in range(500))
    assert right >= 495


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(UserError, match="4 dimensions, the root of 8"):
        matches(KnownPictures([known({"key": "a", "vector": np.ones(4)})]), asked({"place": 0}), np.ones((1, DIM)))
    with pytest.raises(UserError, match="vectors of"):
        KnownPictures([known({"key": "a", "vector": np.ones(4)}, {"key": "b", "vector": np.ones(5)})])


def test_no_known_pictures_match_nothing() -> None:
    of = KnownPictures([SCHEMA.empty_table()])
    assert matches(of, asked({"place": 0, "sha256": "s", "phash": HALF, "entropy": 7.0}), np.ones((1, DIM))) == {}
