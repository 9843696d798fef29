from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.recipe.config import DedupeConfig, EmbedConfig, Recipe
from curation.storage import Root
from jobs.dedupe import run
from tests.support.picture_root import DOWNLOAD, fill, scene, set_vectors

DIM = 16


def encoded(image: Image.Image, form: str = "JPEG") -> bytes:
    sink = io.BytesIO()
    image.save(sink, form)
    return sink.getvalue()


def recipe(folder: Path, *against: str, **options: Any) -> Recipe:
    dedupe = DedupeConfig(against=against, **{"min_cosine": 0.9, **options})
    return Recipe(download=DOWNLOAD, dedupe=dedupe, folder=str(folder))


def removed(root: Root) -> dict[str, tuple[str, str]]:
    """caption → (caption or key of what it gave way to, tier)."""
    sql = (
        "select s.caption, coalesce(k.caption, d.kept_uid), d.tier from duplicates d join samples s using (uid) "
        "left join samples k on k.uid = d.kept_uid"
    )
    return {caption: (kept, tier) for caption, kept, tier in Manifest(root).query(sql).fetchall()}


def evaluation_vectors(folder: Path, *vectors: np.ndarray) -> None:
    (folder / "img_emb").mkdir(parents=True)
    np.save(folder / "img_emb" / "img_emb_0.npy", np.array(vectors))


def directions(count: int) -> list[np.ndarray]:
    return list(np.eye(count, DIM))


@pytest.mark.slow
def test_one_copy_that_is_recognised_takes_all_with_it(spark: SparkSession, root: Root, tmp_path: Path) -> None:
    """By the vector that only a copy has; by the bytes that only a copy with the same pixels has.

    Their captions differ, which keeps them all where no picture is evaluated on.
    """
    twice, large, small = (encoded(scene(1)), encoded(scene(2), "PNG"), encoded(scene(2), "WEBP"))
    pictures = [("best", twice, {}), ("copy", twice, {}), ("pixels", large, {}), ("bytes", small, {})]
    uids = fill(root, [*pictures, ("else", encoded(scene(4)), {})])
    vectors = [np.full(DIM, np.nan), *directions(4)]
    set_vectors(root, dict(zip(uids, vectors, strict=True)))
    same_pixels(root, uids[2], uids[3])
    evaluation_vectors(tmp_path / "by_vector", directions(1)[0])
    (tmp_path / "by_bytes").mkdir()
    (tmp_path / "by_bytes" / "a.webp").write_bytes(small)
    made = recipe(tmp_path, "by_vector", "by_bytes", tiers=("exact", "embedding"), same_caption=True)
    # A model that looks vectors up: the picture is compared by its bytes.
    run(spark, dataclasses.replace(made, embed=EmbedConfig(model=str(tmp_path / "by_vector"))), root)
    key = "by_vector/img_emb/img_emb_0.npy/0"
    assert removed(root) == {
        "best": (key, "decontamination:by_vector"),
        "copy": (key, "decontamination:by_vector"),
        "pixels": ("by_bytes/a.webp", "decontamination:by_bytes"),
        "bytes": ("by_bytes/a.webp", "decontamination:by_bytes"),
    }
    fp = (root.current("duplicates") or {})["fingerprint"]
    assert root.read_json(f"duplicates/{fp}/statistics.json")["against"] == {
        "by_vector": {"pictures": 1, "unreadable": 0, "with_hash": 0, "with_vector": 1},
        "by_bytes": {"pictures": 1, "unreadable": 0, "with_hash": 1, "with_vector": 0},
    }


def same_pixels(root: Root, *uids: str) -> None:
    """Record that the pictures of `uids` have the same pixels."""
    for unit in root.units("downloads"):
        table = root.read_parquet(f"downloads/{unit}.parquet")
        at = table.schema.get_field_index("pixel_sha256")
        values = [
            "q" if uid in uids else value
            for uid, value in zip(*(table[c].to_pylist() for c in ("uid", "pixel_sha256")), strict=True)
        ]
        root.publish_parquet(
            f"downloads/{unit}.parquet", table.set_column(at, table.schema.field(at), pa.array(values))
        )


def test_the_vector_of_a_copy_speaks_for_the_best_row(spark: SparkSession, root: Root) -> None:
    picture = encoded(scene(1))
    near = directions(1)[0] + 0.01
    pictures = [("best", picture, {}), ("copy", picture, {}), ("near", encoded(scene(2)), {})]
    uids = fill(root, [(name, data, {"aesthetic": 9.0 - i}) for i, (name, data, _) in enumerate(pictures)])
    set_vectors(root, dict(zip(uids, [np.full(DIM, np.nan), directions(1)[0], near], strict=True)))
    made = recipe(Path("."), tiers=("exact", "embedding"), keep=("aesthetic desc",))
    run(spark, made, root)
    assert removed(root) == {"copy": ("best", "exact"), "near": ("best", "embedding")}


def test_pictures_embedded_by_a_model_of_another_dimension_are_refused(
    spark: SparkSession, root: Root, tmp_path: Path
) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the score extra")
    uids = fill(root, [("a", encoded(scene(1)), {})], num_units=1)
    set_vectors(root, dict(zip(uids, directions(1), strict=True)))
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "a.jpg").write_bytes(encoded(scene(2)))
    with pytest.raises(UserError, match="vectors of 1280 dimensions, the root has those of 16"):
        run(spark, recipe(tmp_path, "val"), root)


def test_embeddings_without_a_direction_are_no_set(spark: SparkSession, root: Root, tmp_path: Path) -> None:
    uids = fill(root, [("a", encoded(scene(1)), {})], num_units=1)
    set_vectors(root, dict(zip(uids, directions(1), strict=True)))
    evaluation_vectors(tmp_path / "val", np.zeros(DIM), np.full(DIM, 1e300), np.full(DIM, np.inf))
    with pytest.raises(UserError, match="of the 3 pictures in the 1 files of .*val none can be read"):
        run(spark, recipe(tmp_path, "val", tiers=("embedding",)), root)


def test_every_kind_of_a_folder_is_read_and_counted(spark: SparkSession, root: Root, tmp_path: Path) -> None:
    fill(root, [(f"{i}", encoded(scene(i)), {}) for i in range(4)])
    folder = tmp_path / "mix"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(encoded(scene(1)))
    (folder / "plain.png").write_bytes(encoded(Image.new("RGB", (99, 99), "grey"), "PNG"))
    (folder / "b.jpg").write_bytes(b"no picture")
    (folder / "c.jpg").write_bytes(b"")
    with tarfile.open(folder / "annotations.tar", "w") as tar:
        add(tar, "x.json", b"{}")
    with tarfile.open(folder / "more.tar", "w") as tar:
        add(tar, "y.JPG", encoded(scene(2)))
    made = recipe(tmp_path, "mix", tiers=("exact", "perceptual"), min_cosine=None)
    run(spark, made, root)
    assert {caption: key for caption, (key, _) in removed(root).items()} == {
        "1": "mix/a.jpg",
        "2": "mix/more.tar/y.JPG",
    }
    current = root.current("duplicates") or {}
    counts = root.read_json(f"duplicates/{current['fingerprint']}/statistics.json")
    assert counts["against"]["mix"] == {"pictures": 5, "unreadable": 2, "with_hash": 2, "with_vector": 0}
    run(spark, made, root)
    assert (root.current("duplicates") or {}) == current


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello" * 1_000, "dedupe.against: .*/0.tar is not a readable tar"),
        ("torn", "dedupe.against: .*/0.tar is truncated"),
        ("nothing", "of the 0 pictures in the 1 files of .* none can be read"),
        ("broken", "of the 1 pictures in the 1 files of .* none can be read"),
    ],
)
def test_a_set_that_cannot_be_read_is_named_in_one_sentence(
    spark: SparkSession, root: Root, tmp_path: Path, data: bytes | str, words: str
) -> None:
    fill(root, [("a", encoded(scene(1)), {})], num_units=1)
    (tmp_path / "val").mkdir()
    with tarfile.open(tmp_path / "val" / "0.tar", "w") as tar:
        name = "x.json" if data == "nothing" else "x.jpg"
        add(tar, name, encoded(scene(2)) if data == "torn" else b"no picture")
    file = tmp_path / "val" / "0.tar"
    if data == "torn":
        file.write_bytes(file.read_bytes()[:900])
    elif isinstance(data, bytes):
        file.write_bytes(data)
    with pytest.raises(UserError, match=words) as raised:
        run(spark, recipe(tmp_path, "val", tiers=("exact",)), root)
    assert "\n" not in str(raised.value)
    assert root.current("duplicates") is None
