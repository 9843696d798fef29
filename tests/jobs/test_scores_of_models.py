"""Each shipped recipe that names a model's score runs from vectors made here, in place of scores in metadata.

The models have random weights; what is tested is the way from pictures and captions to scores, reasons and counts. The
pictures are photographs of Flickr8k where they lie beside the checkout, else those of the demo.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import curation.demo
from curation.recipe.config import EmbedConfig, NamedModelConfig, Recipe, load_recipe
from curation.storage import Root
from curation.tables import metadata_file, samples_file, texts_file, unit_file, vectors_file
from jobs import embed, score, selection
from tests.support import small_root
from tests.support.demo_run import REPOSITORY
from tests.support.picture_root import fill
from tests.support.scored_root import shipped_recipes
from tests.support.small_root import SmallRoot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from trainer.models.clip import Clip

torch = pytest.importorskip("torch")
FLICKR8K = REPOSITORY.parent / "shared" / "data" / "flickr8k"
NUM_PICTURES = 24
NUM_CENTROIDS = 5
PROMPTS, AGAINST = ("a picture with a watermark",), ("a picture", "a photo of a dog")
FROM_VECTORS: dict[str, dict[str, dict[str, Any]]] = {
    "clip_score": {
        "clip_score": {"filter": "clip_cosine", "embeddings": "b32"},
        "clip_score_l14": {"filter": "clip_cosine", "embeddings": "l14"},
    },
    "aesthetic_score": {"aesthetic_score": {"filter": "aesthetic_head", "embeddings": "l14", "head": "head.npz"}},
    "unsafe_score": {
        "unsafe_score": {"filter": "zero_shot", "embeddings": "b32", "prompts": PROMPTS, "against": AGAINST}
    },
    "watermark_score": {
        "watermark_score": {"filter": "zero_shot", "embeddings": "l14", "prompts": PROMPTS, "against": AGAINST}
    },
    "nearest_centroid": {
        "nearest_centroid": {"embeddings": "l14", "centroids": "centroids.npy", "targets": "targets.npy"}
    },
}
"""A filter of shipped recipes → those that take its place, as docs/filters.md shows. Its columns keep their names."""
SLOW_FILTERS = ("text_overlap",)
"""Filters of the same recipes that read text in pictures; their rules are left out."""
MODELS = {"b32": 0, "l14": 1}
"""Names of the models and their seeds."""


def _read_pairs() -> list[tuple[str, bytes]]:
    """Captions and pictures."""
    if (FLICKR8K / "captions_en.tsv").exists():
        lines = (FLICKR8K / "captions_en.tsv").read_text(encoding="utf-8").splitlines()[: 5 * NUM_PICTURES : 5]
        rows = [line.split("\t") for line in lines]
        return [(caption, (FLICKR8K / "images" / file).read_bytes()) for file, _, caption in rows]
    files = sorted((Path(curation.demo.__file__).parent / "pictures").glob("*.jpg"))[:NUM_PICTURES]
    return [(f"a picture of {file.stem}", file.read_bytes()) for file in files]


def _list_recipes() -> list[str]:
    return [name for name in shipped_recipes() if set(load_recipe(name).filters) & set(FROM_VECTORS)]


def _use_vectors(recipe: Recipe, folder: Path) -> Recipe:
    """`recipe` with the scores of models from vectors. Files that it names lie in `folder`."""
    wanted: dict[str, dict[str, Any]] = {}
    for name, options in recipe.filters.items():
        if name not in SLOW_FILTERS:
            wanted |= FROM_VECTORS.get(name, {name: options})
    slow = ("text_overlap", "text_fraction")
    rules = {name: text for name, text in recipe.rules.items() if not any(word in text for word in slow)}
    models = {name: NamedModelConfig(model=f"{name}.safetensors") for name in MODELS}
    config = EmbedConfig(model="b32.safetensors", models=models)
    return replace(recipe, filters=wanted, rules=rules, embed=config, folder=str(folder))


@dataclass
class Scored:
    """A root that was embedded by both models and scored by the filters of all recipes."""

    root: Root
    folder: Path
    models: dict[str, Clip]
    scores: dict[str, dict[str, Any]]
    """Column → uid → score."""

    def list_vectors(self, model: str) -> Iterator[tuple[str, list[float], list[float]]]:
        """uid, the picture's vector and the caption's, as they stand in the files."""
        table = f"embeddings_{model}"
        for unit in self.root.units("downloads"):
            uids = self.root.read_parquet(metadata_file(unit, table))["uid"].to_pylist()
            files = (vectors_file(unit, table), texts_file(unit, table))
            images, texts = (np.load(io.BytesIO(self.root.read_bytes(rel))).astype(float).tolist() for rel in files)
            yield from zip(uids, images, texts, strict=True)

    def embed_prompts(self, model: str) -> list[list[float]]:
        from trainer.data.tokenizer import tokenize

        with torch.inference_mode():
            vectors: list[list[float]] = self.models[model].encode_text(tokenize([*PROMPTS, *AGAINST])).tolist()
        return vectors


@pytest.fixture(scope="module")
def made(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    from tests.support.tiny_clip import write_tiny_clip

    folder = tmp_path_factory.mktemp("scores")
    root = Root(folder / "root")
    root.create()
    uids = fill(root, [(caption, data, {}) for caption, data in _read_pairs()])
    small_root.duplicates(SmallRoot(root), {uids[0]: uids[1]})
    models = {name: write_tiny_clip(folder / f"{name}.safetensors", seed) for name, seed in MODELS.items()}
    rng, dim = np.random.default_rng(7), models["l14"].config.embed_dim
    np.savez(folder / "head.npz", weight=rng.standard_normal((1, dim)), bias=np.array([5.0]))
    np.save(folder / "centroids.npy", rng.standard_normal((NUM_CENTROIDS, dim)).astype(np.float32))
    np.save(folder / "targets.npy", np.array([0, 3]))
    recipes = [_use_vectors(load_recipe(name), folder) for name in _list_recipes()]
    together = replace(recipes[0], filters={name: o for recipe in recipes for name, o in recipe.filters.items()})
    embed.run(spark, together, root)
    score.check(together, root)
    score.run(spark, together, root)
    return Scored(root, folder, models, _read_scores(root, list(together.filters)))


def _read_scores(root: Root, names: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        for unit in root.units("downloads"):
            for row in root.read_parquet(unit_file(f"scores_{name}", unit)).to_pylist():
                uid = row.pop("uid")
                for column, value in row.items():
                    found.setdefault(column, {})[uid] = value
    return found


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize(("column", "model"), [("clip_score", "b32"), ("clip_score_l14", "l14")])
def test_clip_scores_are_those_of_a_loop_by_hand(made: Scored, column: str, model: str) -> None:
    wanted = {uid: _cosine(image, text) for uid, image, text in made.list_vectors(model)}
    assert made.scores[column] == pytest.approx(wanted, abs=1e-4) and len(wanted) == NUM_PICTURES


def test_aesthetic_scores_are_those_of_a_loop_by_hand(made: Scored) -> None:
    with np.load(made.folder / "head.npz") as head:
        weight = head["weight"][0].tolist()
    for uid, image, _ in made.list_vectors("l14"):
        rating = sum(w * x for w, x in zip(weight, image, strict=True)) / math.hypot(*image) + 5
        assert made.scores["aesthetic_score"][uid] == pytest.approx(rating, abs=1e-4)


@pytest.mark.parametrize(("column", "model"), [("unsafe_score", "b32"), ("watermark_score", "l14")])
def test_scores_of_prompts_are_those_of_a_loop_by_hand(made: Scored, column: str, model: str) -> None:
    prompts = made.embed_prompts(model)
    for uid, image, _ in made.list_vectors(model):
        odds = [math.exp(100 * _cosine(image, prompt)) for prompt in prompts]
        assert made.scores[column][uid] == pytest.approx(odds[0] / sum(odds), abs=1e-4)


def test_nearest_centroids_are_those_of_a_loop_by_hand(made: Scored) -> None:
    centroids = np.load(made.folder / "centroids.npy").astype(float).tolist()
    for uid, image, _ in made.list_vectors("l14"):
        cosines = [_cosine(image, centroid) for centroid in centroids]
        assert made.scores["nearest_centroid"][uid] == int(np.argmax(cosines))
        assert made.scores["centroid_similarity"][uid] == pytest.approx(max(cosines), abs=1e-4)
        assert made.scores["in_target"][uid] == (int(np.argmax(cosines)) in (0, 3))


@pytest.mark.parametrize("name", _list_recipes())
def test_a_shipped_recipe_decides_by_them_and_what_if_counts_what_select_records(made: Scored, name: str) -> None:
    recipe = _use_vectors(load_recipe(name), made.folder)
    selection.check(recipe, made.root)
    lines = selection.preview_rules(recipe, recipe, made.root).split("\n\n")[0].splitlines()[2:]
    counted = Counter({line.split()[0]: int(line.split()[2]) for line in lines if line.split()[2] != "0"})
    selection.run_here(recipe, made.root)
    files = (made.root.current("selection") or {})["files"]
    rows = [row for rel in files for row in made.root.read_parquet(rel).to_pylist()]
    recorded = Counter(row["reason"] for row in rows)
    assert len(rows) == sum(len(made.root.read_parquet(samples_file(unit))) for unit in made.root.units("samples"))
    assert counted and counted == Counter({reason: n for reason, n in recorded.items() if reason in recipe.rules})


def test_every_score_of_a_model_that_shipped_recipes_name_has_one_from_vectors() -> None:
    assert {"coyo-700m", "datacomp-1b", "laion-2b-en", "laion-400m", "laion-aesthetic", "t-mars"} < set(_list_recipes())
