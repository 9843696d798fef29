"""Scores by several models in one root, and what is refused before any work."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.recipe.config import EmbedConfig, NamedModelConfig, Recipe, load_recipe
from curation.settings import from_dict
from curation.storage import Root
from curation.tables import embedded_units, metadata_file, texts_file, unit_file, vectors_file
from jobs import embed, score, selection
from tests.support.picture_root import fill, scene

pytest.importorskip("torch")
CAPTIONS = ["a red dog", "two cats on a mat", "", "the sea", "a drawing"]
CONCEPT = {"filter": "zero_shot", "prompts": ["a drawing"], "against": ["a photo", "a map"]}


@pytest.fixture
def folder(tmp_path: Path, root: Root) -> Path:
    """Pictures in `root`, and two tiny CLIPs."""
    from tests.support.tiny_clip import write_tiny_clip

    pictures = []
    for number, caption in enumerate(CAPTIONS):
        sink = io.BytesIO()
        scene(number).save(sink, "JPEG")
        pictures.append((caption, sink.getvalue(), dict[str, Any]()))
    fill(root, pictures)
    write_tiny_clip(tmp_path / "one.safetensors", 1)
    write_tiny_clip(tmp_path / "two.safetensors", 2)
    return tmp_path


def make_recipe(folder: Path, filters: dict[str, dict[str, Any]]) -> Recipe:
    models = {"two": NamedModelConfig(model="two.safetensors")}
    return Recipe(folder=str(folder), embed=EmbedConfig(model="one.safetensors", models=models), filters=filters)


def read_scores(root: Root, name: str) -> dict[str, float | None]:
    rows = [
        row for u in root.units("downloads") for row in root.read_parquet(unit_file(f"scores_{name}", u)).to_pylist()
    ]
    return {row["uid"]: row[name] for row in rows}


def read_pairs(root: Root, table: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Vectors of the picture and the caption of each uid."""
    found = {}
    for unit in embedded_units(root, table):
        uids = root.read_parquet(metadata_file(unit, table))["uid"].to_pylist()
        rows = [np.load(io.BytesIO(root.read_bytes(file(unit, table)))) for file in (vectors_file, texts_file)]
        found |= {uid: (rows[0][i].astype(float), rows[1][i].astype(float)) for i, uid in enumerate(uids)}
    return found


def test_scores_of_two_models_stand_side_by_side_and_equal_a_loop(
    spark: SparkSession, root: Root, folder: Path
) -> None:
    from jobs.embedders import load_text_embedder

    chosen = {"clip_cosine": {}, "clip_two": {"filter": "clip_cosine", "embeddings": "two"}}
    recipe = make_recipe(folder, {**chosen, "drawing": {**CONCEPT, "embeddings": "two"}})
    embed.run(spark, recipe, root)
    score.run(spark, recipe, root)
    for name, table in (("clip_cosine", "embeddings"), ("clip_two", "embeddings_two")):
        scores = read_scores(root, name)
        for uid, (image, text) in read_pairs(root, table).items():
            expected = image @ text / np.linalg.norm(image) / np.linalg.norm(text)
            assert scores[uid] == (None if np.isnan(expected) else pytest.approx(expected, abs=1e-4))
    assert read_scores(root, "clip_cosine") != read_scores(root, "clip_two")
    texts = ["a drawing", "a photo", "a map"]
    prompts = load_text_embedder(str(folder / "two.safetensors")).embed_texts([""] * 3, texts)
    for uid, (image, _) in read_pairs(root, "embeddings_two").items():
        odds = np.exp(100 * (prompts @ image) / np.linalg.norm(image))
        assert read_scores(root, "drawing")[uid] == pytest.approx(odds[0] / odds.sum(), abs=1e-3)


def test_scores_are_of_the_model_that_made_the_vectors(spark: SparkSession, root: Root, folder: Path) -> None:
    recipe = make_recipe(folder, {"clip_cosine": {}})
    embed.run(spark, recipe, root)
    score.run(spark, recipe, root)
    root.remove("embeddings")
    (folder / "one.safetensors").write_bytes((folder / "two.safetensors").read_bytes())
    embed.run(spark, recipe, root)
    with pytest.raises(UserError, match="scores_clip_cosine was made with other settings .embedded_by differ"):
        score.run(spark, recipe, root)


def test_wrong_models_are_refused_before_any_work(root: Root, folder: Path) -> None:
    np.savez(folder / "head.npz", weight=np.ones((1, 512)), bias=np.ones(1))
    wrong = {
        r"no \[embed\.models\.l14\]: name one of its models \(two\)": {"clip_cosine": {"embeddings": "l14"}},
        "for embeddings of 512 numbers, but the run's have 32": {"aesthetic_head": {"head": "head.npz"}},
    }
    for said, chosen in wrong.items():
        with pytest.raises(UserError, match=said):
            score.check(make_recipe(folder, chosen), root)
    pictures_alone = Recipe(folder=str(folder), filters={"clip_cosine": {}})
    with pytest.raises(UserError, match="reads vectors of captions, and efficientnet_lite0 has no text tower"):
        score.check(pictures_alone, root)
    with pytest.raises(UserError, match="has prompts to embed, and efficientnet_lite0 has no text tower"):
        score.check(Recipe(folder=str(folder), filters={"drawing": CONCEPT}), root)


def test_units_without_vectors_of_captions_are_counted(spark: SparkSession, root: Root, folder: Path) -> None:
    recipe = make_recipe(folder, {"clip_cosine": {}})
    embed.run(spark, recipe, root)
    root.remove(texts_file(root.units("downloads")[0]))
    with pytest.raises(UserError, match="1 of 2 units have none in embeddings: run `curate embed` again"):
        score.run(spark, recipe, root)
    assert not root.exists("scores_clip_cosine")


RECIPES = {
    "laion-400m": ("clip_score", "unsafe_score"),
    "laion-2b-en": ("clip_score", "unsafe_score", "watermark_score"),
    "laion-2b-multi": ("clip_score", "unsafe_score", "watermark_score"),
    "laion-aesthetic": ("aesthetic_score", "unsafe_score", "watermark_score"),
    "datacomp-clip-score": ("clip_score", "clip_score_l14"),
    "datacomp-image-based": (),
    "datacomp-1b": ("clip_score", "clip_score_l14"),
}
"""Shipped recipe → filters that take scores from metadata, or columns of theirs."""


def take_from_vectors(name: str, head: Path) -> dict[str, Any]:
    """The section [filters.NAME] that computes the score which `name` takes from metadata."""
    if name == "aesthetic_score":
        return {"filter": "aesthetic_head", "head": str(head)}
    return {"filter": "clip_cosine"} if name.startswith("clip") else dict(CONCEPT)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_run_from_vectors_alone(
    spark: SparkSession, root: Root, tmp_path: Path, shared_data: Path, name: str
) -> None:
    from tests.support.tiny_clip import write_tiny_clip

    photographs = sorted((shared_data / "flickr8k" / "images").glob("*.jpg"))[:12]
    lines = (shared_data / "flickr8k" / "captions_en.tsv").read_text(encoding="utf-8").splitlines()
    captions = {line.split("\t")[0]: line.split("\t")[2] for line in lines}
    fill(root, [(captions[file.name], file.read_bytes(), {}) for file in photographs])
    write_tiny_clip(tmp_path / "clip.safetensors", embed_dim=512)
    np.save(tmp_path / "centroids.npy", np.random.default_rng(0).standard_normal((6, 512)))
    np.save(tmp_path / "targets.npy", np.arange(6))
    shipped = load_recipe(name)
    head = shared_data.parent / "models" / "sa_0_4_vit_b_32_linear.pth"
    replaced = {one: take_from_vectors(one, head) for one in RECIPES[name]}
    centroids = {key: str(tmp_path / f"{key}.npy") for key in ("centroids", "targets")}
    if "nearest_centroid" in shipped.filters:
        replaced["nearest_centroid"] = centroids
    model = {"model": str(tmp_path / "clip.safetensors")}
    changes = {"embed": from_dict(EmbedConfig, model, "[embed]"), "filters": {**shipped.filters, **replaced}}
    recipe = from_dict(Recipe, {**vars(shipped), **changes}, name)
    for stage in (embed, score):
        stage.check(recipe, root)
        stage.run(spark, recipe, root)
    selection.run_here(recipe, root)
    assert sum(len(root.read_parquet(file)) for file in (root.current("selection") or {})["files"]) == 12
    columns = {name for name in replaced if name != "nearest_centroid"}
    assert all(None not in read_scores(root, column).values() for column in columns)
