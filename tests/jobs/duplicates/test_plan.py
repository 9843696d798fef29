"""What `check` of embed and dedupe refuses before any stage has run; none of this needs a session."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.recipe.config import DedupeConfig, EmbedConfig, Recipe
from curation.storage import Root
from curation.tables import METADATA
from jobs import dedupe, embed
from jobs.duplicates.plan import describe_config, plan_dedupe, resolve_doubtful
from jobs.embedders import identify_model
from jobs.embedders.efficientnet_lite0 import EfficientNetLite0
from tests.support.picture_root import fill, scene, set_vectors

MODEL = "efficientnet-lite0"


def recipe(folder: Path, model: str = MODEL, **options: Any) -> Recipe:
    return Recipe(folder=str(folder), embed=EmbedConfig(model=model), dedupe=DedupeConfig(**options))


def write_vectors(folder: Path, dim: int) -> None:
    """A folder of embeddings of two rows, whole."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", np.ones((2, dim), np.float16))
    pq.write_table(pa.table({"url": ["a", "b"], "caption": ["", ""]}), folder / "metadata" / "metadata_0.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a recipe, with models and evaluation sets of several kinds."""
    write_vectors(tmp_path / "own", 8)
    write_vectors(tmp_path / "val8", 8)
    write_vectors(tmp_path / "val9", 9)
    (tmp_path / "val" / "img_emb").mkdir(parents=True)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"picture")
    (tmp_path / "torn.safetensors").write_bytes(b"no header")
    (tmp_path / "torn.pt").write_bytes(b"no zip")
    (tmp_path / "torn.onnx").write_bytes(b"no graph")
    return tmp_path


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"keep": ("beauty desc",)}, "dedupe.keep: 'beauty desc'"),
    ({"model": "efficientnet-lite1"}, "embed.model: 'efficientnet-lite1' is no known embedder"),
    ({"model": "nowhere.onnx"}, "embed.model: 'nowhere.onnx'"),
    ({"model": "own"}, "No calibrated cosine is known for .*own"),
    ({"tiers": ("exact",), "against": ("nowhere",)}, "nothing is at .*nowhere"),
    ({"tiers": ("exact",), "against": (" ",)}, "empty path"),
    ({"tiers": ("exact",), "against": ("val8",)}, "only the embedding tier compares"),
    ({"model": "own", "min_cosine": 0.9, "against": ("val9",)}, "vectors of 9 dimensions, the root of 8"),
    ({"model": "own", "min_cosine": 0.9, "verify_from": 0.9}, "verify_from must be smaller than 0.9"),
    ({"model": "own", "min_cosine": 0.9, "verify_below": 0.95}, "say in dedupe.verify_from where it begins"),
    ({"verify_from": 0.95}, "verify_from must be smaller than"),
    ({"model": "own", "min_cosine": 0.9, "tiers": ("embedding",), "against": ("pictures",)}, "own cannot embed"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_dedupe_refuses_what_the_recipe_alone_tells(folder: Path, options: dict[str, Any], words: str) -> None:
    root = Root(folder / "no root yet")
    with pytest.raises(UserError, match=words) as raised:
        dedupe.check(recipe(folder, **options), root)
    assert "\n" not in str(raised.value)
    assert not root.exists("")


@pytest.mark.parametrize(
    "options",
    [
        {"tiers": ("exact", "perceptual"), "model": "nowhere"},
        {"model": "own", "min_cosine": 0.9, "against": ("val8", "pictures")},
        {"keep": ("aesthetic desc",), "tiers": ()},
    ],
)
def test_dedupe_accepts_what_it_can_compare_before_there_is_a_root(folder: Path, options: dict[str, Any]) -> None:
    root = Root(folder / "no root yet")
    dedupe.check(recipe(folder, **options), root)
    assert not root.exists("")


@pytest.mark.parametrize(
    ("options", "doubtful"),
    [
        ({}, EfficientNetLite0.doubtful_cosines),
        ({"min_cosine": 0.8}, None),
        ({"min_cosine": 0.8, "verify_from": 0.7}, (0.7, 0.8)),
        ({"verify_from": 0.7, "verify_below": 0.9}, (0.7, 0.9)),
    ],
    ids=["the embedder's own", "none with a cosine of one's own", "up to that cosine", "as given"],
)
def test_the_range_of_doubt_is_the_embedders_unless_the_recipe_has_a_cosine(
    options: dict[str, Any], doubtful: tuple[float, float] | None
) -> None:
    assert resolve_doubtful(DedupeConfig(**options), MODEL) == doubtful


def test_a_run_without_doubt_is_recorded_as_by_earlier_releases() -> None:
    recorded = describe_config(DedupeConfig(min_cosine=0.8), 0.8, None)
    assert not {"verify_from", "verify_below", "min_correlation", "max_doubtful"} & set(recorded)
    recorded = describe_config(DedupeConfig(), 0.8, (0.7, 0.9))
    assert (recorded["verify_from"], recorded["verify_below"], recorded["min_cosine"]) == (0.7, 0.9, 0.8)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("no-such-model", "'no-such-model' is no known embedder"),
        ("val", "has no metadata"),
        ("torn.safetensors", "torn.safetensors is not a whole safetensors file"),
        ("torn.pt", "torn.pt is not a checkpoint"),
        ("torn.onnx", "torn.onnx is no ONNX model"),
    ],
)
def test_embed_refuses_a_model_that_it_cannot_use(folder: Path, model: str, words: str) -> None:
    if model.endswith(".onnx"):
        pytest.importorskip("onnxruntime", reason="needs onnxruntime, which no extra installs")
    elif model.startswith("torn"):
        pytest.importorskip("torch", reason="needs the train extra")
    root = Root(folder / "no root yet")
    with pytest.raises(UserError, match=words):
        embed.check(recipe(folder, model), root)
    assert not root.exists("")


def embedded(root: Root, folder: Path, dim: int = 8) -> None:
    """Four pictures with vectors that folder `own` is said to have given."""
    sink = io.BytesIO()
    scene(1).save(sink, "JPEG")
    uids = fill(root, [(f"{i}", sink.getvalue(), {}) for i in range(4)])
    root.begin_stage(METADATA, {"model": identify_model(str(folder / "own"))})
    set_vectors(root, dict(zip(uids, np.eye(4, dim), strict=True)))


@pytest.mark.parametrize("stage", [embed, dedupe])
def test_another_model_than_that_of_the_root_is_refused(folder: Path, root: Root, stage: Any) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the score extra")
    embedded(root, folder)
    stage.check(recipe(folder, "own", min_cosine=0.9), root)
    with pytest.raises(UserError, match=r"was embedded with own:.*embed\.model is efficientnet-lite0"):
        stage.check(recipe(folder), root)


def test_a_root_whose_vectors_were_all_deleted_may_get_another_model(folder: Path, root: Root) -> None:
    root.begin_stage(METADATA, {"model": "clip.onnx:abc"})
    embed.check(recipe(folder, "own"), root)
    dedupe.check(recipe(folder, "own", min_cosine=0.9), root)


def test_evaluation_vectors_must_have_the_dimension_of_the_root(folder: Path, root: Root) -> None:
    embedded(root, folder)
    dedupe.check(recipe(folder, "own", min_cosine=0.9, against=("val8",)), root)
    with pytest.raises(UserError, match="vectors of 9 dimensions, the root of 8"):
        dedupe.check(recipe(folder, "own", min_cosine=0.9, against=("val9",)), root)


def test_a_plan_holds_what_was_resolved(folder: Path, root: Root) -> None:
    embedded(root, folder)
    made = recipe(folder, "own", min_cosine=0.75, against=("val8",))
    plan = plan_dedupe(dataclasses.replace(made, embed=EmbedConfig(model="own", batch_size=7)), root)
    assert (plan.model, plan.batch_size) == (str(folder / "own"), 7)
    assert (plan.min_cosine, plan.dim, plan.search.min_cosine) == (0.75, 8, 0.75)
    assert [item.name for item in plan.sets] == ["val8"] and len(plan.inputs["against"]) == 1
    assert plan.units == root.units("downloads") and plan.work == f"duplicates/{plan.fp}/work"
    without = plan_dedupe(recipe(folder, "own", tiers=("exact",)), root)
    assert (without.min_cosine, without.dim, "vectors" in without.inputs) == (None, None, False)
    assert without.fp != plan.fp
