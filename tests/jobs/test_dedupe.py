import dataclasses
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.recipe.config import DedupeConfig, Recipe
from curation.schema import DUPLICATES
from curation.storage import Root
from jobs.dedupe import run
from jobs.duplicates.preview import preview
from jobs.spark.errors import unwrap_task_errors
from tests.support.picture_root import DOWNLOAD, Fetched, fill, scene, set_vectors

DIM = 16


def encoded(image: Image.Image, form: str = "JPEG", quality: int = 92) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, quality=quality)
    return sink.getvalue()


def direction(seed: int, towards: int | None = None, cosine: float = 0.0) -> np.ndarray:
    """A random unit vector, or one at `cosine` from that of seed `towards`."""
    own = np.random.default_rng(seed).standard_normal(DIM)
    own /= np.linalg.norm(own)
    if towards is None:
        return own
    other = direction(towards)
    own -= (own @ other) * other
    return cosine * other + np.sqrt(1 - cosine**2) * own / np.linalg.norm(own)


def recipe(**options: Any) -> Recipe:
    return Recipe(download=DOWNLOAD, dedupe=DedupeConfig(**{"min_cosine": 0.9, **options}))


def removed(root: Root) -> dict[str, tuple[str, str]]:
    """caption → (caption or key of what it gave way to, tier), after checking what holds for every table."""
    manifest = Manifest(root)
    rows = manifest.query(
        "select s.caption, coalesce(k.caption, d.kept_uid), d.tier, d.similarity, d.component, d.kept_uid "
        "from duplicates d join samples s using (uid) left join samples k on k.uid = d.kept_uid"
    ).fetchall()
    assert all(0 < row[3] <= 1 for row in rows)
    kept = {row[5] for row in rows}
    assert not kept & {row[0] for row in manifest.query("select uid from duplicates").fetchall()}
    files = (root.current("duplicates") or {})["files"]
    assert all(root.read_parquet(file).schema.equals(DUPLICATES) for file in files)
    return {row[0]: (row[1], row[2]) for row in rows}


def lossless(level: int) -> bytes:
    """Other bytes for each `level`, the same pixels."""
    sink = io.BytesIO()
    scene(7).save(sink, "PNG", compress_level=level)
    return sink.getvalue()


PICTURES: list[Fetched] = [
    ("original", encoded(scene(1, 128)), {}),
    ("same bytes", encoded(scene(1, 128)), {}),
    ("same pixels", encoded(scene(1, 128), "PNG"), {}),
    ("smaller", encoded(scene(1, 96), quality=60), {}),
    ("looks alike", encoded(scene(2)), {}),
    ("another", encoded(scene(3, 100)), {}),
    ("plain grey", encoded(Image.new("RGB", (120, 120), "grey")), {}),
    ("plain blue", encoded(Image.new("RGB", (110, 110), (90, 100, 110))), {}),
    ("no vector", encoded(scene(4)), {}),
    ("zero vector", encoded(scene(5)), {}),
    ("zero too", encoded(scene(6)), {}),
    ("missing", b"", {}),
    ("lossless", lossless(1), {}),
    ("lossless, packed", lossless(9), {}),
]
VECTORS = {
    "original": direction(1),
    "same bytes": direction(1),
    "same pixels": direction(1),
    "smaller": direction(8),
    "looks alike": direction(2, towards=1, cosine=0.95),
    "no vector": np.full(DIM, np.nan),
    "zero vector": np.zeros(DIM),
    "zero too": np.zeros(DIM),
}


def build(root: Root, num_units: int = 2) -> None:
    """The pictures above; the uids do not depend on the number of units."""
    uids = fill(root, PICTURES, num_units=num_units)
    chosen = [VECTORS.get(caption, direction(50 + i)) for i, (caption, _, _) in enumerate(PICTURES)]
    set_vectors(root, dict(zip(uids, chosen, strict=True)))


# "original" and its copies have the same size; uids decide between them, so the rule names the source of truth.
KEEP = ("resolution desc", "num_bytes", "uid")


def test_three_tiers_are_one_graph_and_bad_vectors_spoil_nothing(spark: SparkSession, root: Root) -> None:
    build(root)
    run(spark, recipe(keep=KEEP), root)
    found = removed(root)
    first, other = by_uid(root, "original", "same bytes")
    fewer_bytes, more_bytes = "lossless, packed", "lossless"
    assert lossless(9) != lossless(1) and len(lossless(9)) < len(lossless(1))
    assert found == {
        other: (first, "exact"),
        more_bytes: (fewer_bytes, "exact"),
        "same pixels": (first, "perceptual"),
        "smaller": (first, "perceptual"),
        "looks alike": (first, "embedding"),
    }
    fp = (root.current("duplicates") or {})["fingerprint"]
    counts = root.read_json(f"duplicates/{fp}/statistics.json")
    assert counts["removed"] == {"exact": 2, "perceptual": 2, "embedding": 1}
    assert counts["pictures"] == 13
    assert counts["zero_or_nan_vector"] == 3
    assert counts["too_plain_for_phash"] == 2
    assert root.list(f"duplicates/{fp}/work") == []


def by_uid(root: Root, *captions: str) -> list[str]:
    return sorted(captions, key=lambda caption: uid_of(root, caption))


def uid_of(root: Root, caption: str) -> str:
    return Manifest(root).query("select uid from samples where caption = ?", [caption]).fetchall()[0][0]


ELSEWHERE = """
import sys
from jobs.dedupe import run
from jobs.spark.session import session
from curation.storage import Root
from tests.jobs.test_dedupe import recipe
run(session("one worker", spark__master="local[1]", spark__sql__shuffle__partitions="3"), recipe(), Root(sys.argv[1]))
"""


@pytest.mark.slow
def test_partitions_units_workers_and_the_components_engine_do_not_matter(spark: SparkSession, tmp_path: Path) -> None:
    results = []
    before = spark.conf.get("spark.sql.shuffle.partitions") or "2"
    for number, (units, partitions, local) in enumerate([(1, 1, 10**6), (3, 5, 10**6), (2, 2, 0)]):
        root = Root(tmp_path / str(number))
        root.create()
        build(root, units)
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        try:
            run(spark, recipe(max_local_edges=local), root)
        finally:
            spark.conf.set("spark.sql.shuffle.partitions", before)
        results.append(written(root))
    alone = Root(tmp_path / "alone")
    alone.create()
    build(alone, 4)
    subprocess.run([sys.executable, "-c", ELSEWHERE, alone.base], check=True, timeout=800)
    results.append(written(alone))
    assert len(results[0]) == 1
    assert all(result == results[0] for result in results)


def written(root: Root) -> list[bytes]:
    return [root.read_bytes(file) for file in (root.current("duplicates") or {})["files"]]


def test_the_same_run_again_does_nothing_and_another_threshold_does(spark: SparkSession, root: Root) -> None:
    build(root)
    run(spark, recipe(tiers=("embedding",)), root)
    assert "looks alike" in removed(root)
    first = root.current("duplicates")
    assert first is not None
    before = Path(root.full(first["files"][0])).stat().st_mtime_ns
    run(spark, recipe(tiers=("embedding",)), root)
    assert Path(root.full(first["files"][0])).stat().st_mtime_ns == before
    run(spark, recipe(tiers=("embedding",), min_cosine=0.97), root)
    assert (root.current("duplicates") or {})["fingerprint"] != first["fingerprint"]
    assert "looks alike" not in removed(root)


@pytest.mark.slow
def test_a_lost_file_is_made_again(spark: SparkSession, root: Root) -> None:
    build(root)
    run(spark, recipe(tiers=("embedding",)), root)
    before = written(root)
    root.remove((root.current("duplicates") or {})["files"][0])
    run(spark, recipe(tiers=("embedding",)), root)
    assert written(root) == before


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((0, image.height // 8, image.width * 7 // 8, image.height))


def build_doubtful(root: Root, num_units: int = 2) -> None:
    """A picture, a crop of it and another picture, whose vectors are all as near to each other; and a copy of the crop.

    The copy of the crop is near the crop, and no nearer to the picture than the crop is.
    """
    pictures: list[Fetched] = [
        ("picture", encoded(scene(1, 200)), {}),
        ("crop", encoded(cropped(scene(1, 160))), {}),
        ("another", encoded(scene(9, 120)), {}),
        ("crop of the crop", encoded(scene(1, 160).crop((20, 20, 130, 150))), {}),
        ("plain", encoded(Image.new("RGB", (110, 110), "grey")), {}),
    ]
    vectors = np.full((5, 5), 0.6) + 0.4 * np.eye(5)
    vectors[1, 3] = vectors[3, 1] = 0.95
    places = np.linalg.cholesky(vectors)
    uids = fill(root, pictures, num_units=num_units)
    set_vectors(root, dict(zip(uids, np.pad(places, ((0, 0), (0, DIM - 5))), strict=True)))


IN_DOUBT = {"tiers": ("embedding",), "verify_from": 0.5, "keep": KEEP}


def test_pairs_in_doubt_are_linked_when_their_pictures_agree(spark: SparkSession, root: Root) -> None:
    build_doubtful(root)
    run(spark, recipe(**IN_DOUBT), root)
    assert removed(root) == {"crop": ("picture", "verified"), "crop of the crop": ("crop", "embedding")} or (
        removed(root) == {"crop": ("picture", "verified"), "crop of the crop": ("picture", "verified")}
    )
    similarity = Manifest(root).query("select min(similarity) from duplicates where tier = 'verified'").fetchall()
    assert similarity[0][0] >= DedupeConfig().min_correlation
    fp = (root.current("duplicates") or {})["fingerprint"]
    counts = root.read_json(f"duplicates/{fp}/statistics.json")
    assert counts["removed"]["verified"] >= 1 and counts["pairs_looked_at"] >= 3


def test_without_doubt_only_the_cosine_decides(spark: SparkSession, root: Root) -> None:
    build_doubtful(root)
    run(spark, recipe(tiers=("embedding",), keep=KEEP), root)
    assert removed(root) == {"crop of the crop": ("crop", "embedding")}
    run(spark, recipe(**{**IN_DOUBT, "min_correlation": 1.0}), root)
    assert removed(root) == {"crop of the crop": ("crop", "embedding")}


@pytest.mark.slow
def test_second_looks_do_not_depend_on_units_and_on_who_holds_the_graph(spark: SparkSession, tmp_path: Path) -> None:
    results = []
    for number, (num_units, local) in enumerate([(1, 10**6), (3, 10**6), (3, 0)]):
        root = Root(tmp_path / str(number))
        root.create()
        build_doubtful(root, num_units)
        run(spark, recipe(**IN_DOUBT, max_local_edges=local), root)
        fp = (root.current("duplicates") or {})["fingerprint"]
        results.append((written(root), root.read_bytes(f"duplicates/{fp}/statistics.json")))
    assert results[0] == results[1] == results[2] and results[0][0]


def test_a_lost_shard_is_one_sentence(spark: SparkSession, root: Root) -> None:
    build_doubtful(root)
    for shard in root.list("raw"):
        root.remove(f"raw/{shard}")
    with pytest.raises(UserError, match=r"raw/.*\.tar is gone"), unwrap_task_errors():
        run(spark, recipe(**IN_DOUBT), root)


def chain(root: Root, **more: Any) -> None:
    """Four different pictures whose vectors form a chain; `aesthetic` ranks them 0, 1, 2, 3."""
    angle = np.arccos(0.95)
    pictures = [(f"link {i}", encoded(scene(20 + i)), {"aesthetic": 9.0 - i, **more}) for i in range(4)]
    uids = fill(root, pictures)
    plane = [np.r_[np.cos(angle * i), np.sin(angle * i), np.zeros(DIM - 2)] for i in range(4)]
    set_vectors(root, dict(zip(uids, plane, strict=True)))


def test_a_chain_is_cut_where_a_row_is_unlike_the_one_that_stays(spark: SparkSession, root: Root) -> None:
    chain(root)
    run(spark, recipe(tiers=("embedding",), keep=("aesthetic desc",)), root)
    assert removed(root) == {"link 1": ("link 0", "embedding"), "link 3": ("link 2", "embedding")}
    components = Manifest(root).query("select distinct component from duplicates").fetchall()
    assert components == [(uid_of(root, "link 0"),)]


def test_the_keep_rule_decides_and_unknown_values_come_last(spark: SparkSession, root: Root) -> None:
    pictures: list[Fetched] = [
        ("unknown", encoded(scene(1)), {"clip_similarity": None}),
        ("not a number", encoded(scene(1)), {"clip_similarity": float("nan")}),
        ("low", encoded(scene(1)), {"clip_similarity": 0.1}),
        ("high", encoded(scene(1)), {"clip_similarity": 0.3}),
    ]
    fill(root, pictures)
    options = {"tiers": ("exact",), "min_cosine": None}
    run(spark, recipe(keep=("clip_similarity desc",), **options), root)
    assert {kept for kept, _ in removed(root).values()} == {"high"}
    run(spark, recipe(keep=("clip_similarity",), **options), root)
    assert {kept for kept, _ in removed(root).values()} == {"low"}


@pytest.mark.slow
def test_another_caption_can_be_kept(spark: SparkSession, root: Root) -> None:
    picture, smaller = encoded(scene(1, 128)), encoded(scene(1, 90))
    fill(root, [("A Dog ", picture, {}), ("a dog", picture, {}), ("a cat", picture, {}), ("a dog", smaller, {})])
    options = {"tiers": ("exact", "perceptual"), "min_cosine": None}
    run(spark, recipe(**options), root)
    assert count(root) == 3
    run(spark, recipe(same_caption=True, **options), root)
    assert count(root) == 2
    assert "a cat" not in removed(root)


def count(root: Root) -> int:
    return Manifest(root).query("select count(*) from duplicates").fetchall()[0][0]


@pytest.mark.slow
def test_evaluation_pictures_are_found_by_every_tier(spark: SparkSession, root: Root, tmp_path: Path) -> None:
    build(root)
    pictures = tmp_path / "evalset" / "deep"
    pictures.mkdir(parents=True)
    (pictures / "one.jpg").write_bytes(PICTURES[0][1])
    (pictures / "another.png").write_bytes(encoded(scene(3, 70), "PNG"))
    (pictures / "broken.jpg").write_bytes(b"no picture")
    vectors = tmp_path / "vectors"
    (vectors / "img_emb").mkdir(parents=True)
    np.save(vectors / "img_emb" / "img_emb_0.npy", np.array([direction(99), direction(60, 2, 0.0), direction(8)]))
    made = dataclasses.replace(recipe(against=("evalset", "vectors")), folder=str(tmp_path))
    made = dataclasses.replace(made, embed=dataclasses.replace(made.embed, model=str(vectors)))
    run(spark, made, root)
    found = removed(root)
    for copy in ("original", "same bytes"):
        assert found[copy] == ("evalset/deep/one.jpg", "decontamination:evalset")
    assert found["same pixels"][1] == "decontamination:evalset"
    assert found["another"] == ("evalset/deep/another.png", "decontamination:evalset")
    assert found["smaller"][1].startswith("decontamination:")
    # The row that its removed look-alike would have replaced stays.
    assert "looks alike" not in found


def test_evaluation_webdatasets_are_read(spark: SparkSession, root: Root, tmp_path: Path) -> None:
    fill(root, [("a", encoded(scene(1)), {}), ("b", encoded(scene(2)), {})])
    other = Root(tmp_path / "coco")
    other.create()
    fill(other, [("x", encoded(scene(2)), {})], num_units=1)
    options = {"tiers": ("exact", "perceptual"), "min_cosine": None}
    run(spark, recipe(against=(str(tmp_path / "coco" / "raw" / "*.tar"),), **options), root)
    (caption, (key, tier)) = next(iter(removed(root).items()))
    assert (caption, tier) == ("b", "decontamination:raw")
    assert key.startswith("raw/") and key.endswith(".jpg")


def test_vectors_of_two_dimensions_are_refused(spark: SparkSession, root: Root) -> None:
    build(root)
    unit = root.units("downloads")[1]
    rows = len(root.read_parquet(f"embeddings/metadata/metadata_{unit}.parquet"))
    sink = io.BytesIO()
    np.save(sink, np.ones((rows, DIM + 1), np.float16))
    root.publish(f"embeddings/img_emb/img_emb_{unit}.npy", sink.getvalue())
    with pytest.raises(UserError, match=f"{unit} has vectors of {DIM + 1} dimensions"):
        run(spark, recipe(), root)
    assert not root.exists("duplicates")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "curate embed"),
        ({"keep": ("beauty desc",)}, "beauty desc"),
        ({"tiers": ("exact",), "against": ("nowhere",)}, "nowhere"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(
    spark: SparkSession, root: Root, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match="curate download"):
        run(spark, recipe(), root)
    fill(root, PICTURES[:2])
    with pytest.raises(UserError, match=message):
        run(spark, recipe(**options), root)
    assert not root.exists("duplicates")


def test_preview_writes_a_sheet_and_decides_nothing(spark: SparkSession, root: Root, tmp_path: Path) -> None:
    build(root)
    preview(spark, recipe(), root, str(tmp_path / "sheet.html"))
    text = (tmp_path / "sheet.html").read_text()
    assert "cosine 0.975 to 1.000" in text and "6 bits apart" in text
    assert 'class="limit">cosine 0.875 to 0.900' in text
    assert text.count("<img") >= 4
    assert not root.exists("duplicates")
