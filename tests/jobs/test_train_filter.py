"""`curate train-filter`: what it refuses, and that it trains, embeds and scores."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.recipe.config import load_recipe
from curation.storage import Root
from curation.tables import embedded_units, unit_file
from jobs.train_filter import check_rest, resolve_recipe, resolve_stages, run_train_filter
from tests.support.demo_run import REPOSITORY, curate, environment
from tests.support.picture_root import fill, scene

pytest.importorskip("torch")
SECTION = '[embed.models.dfn]\nmodel = "dfn.safetensors"\n'
NUM_PAIRS = 24


@pytest.fixture
def made(root: Root, tmp_path: Path) -> Root:
    """A root of NUM_PAIRS pictures and a recipe beside it."""
    root.create()
    pictures = []
    for number in range(NUM_PAIRS):
        sink = io.BytesIO()
        scene(number).save(sink, "JPEG")
        pictures.append((f"picture number {number}", sink.getvalue(), dict[str, Any]()))
    fill(root, pictures)
    (tmp_path / "recipe.toml").write_text(SECTION)
    return root


def run(tmp_path: Path, root: Root, where: str = "source = 'laion'", name: str = "dfn") -> None:
    run_train_filter(
        str(tmp_path / "recipe.toml"), [], root, name=name, where=where, config="filter-small", changes=[], num_ranks=1
    )


def test_what_is_wrong_is_said_before_anything_is_trained(
    made: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.train_filter.train", lambda plan: pytest.fail("it trained"))
    with pytest.raises(UserError, match=r'no \[embed\.models\.mine\]: add it with model = "mine\.safetensors"'):
        run(tmp_path, made, name="mine")
    with pytest.raises(UserError, match="No picture of .* fulfils --where"):
        run(tmp_path, made, "source = 'nobody'")
    with pytest.raises(UserError, match="sauce"):
        run(tmp_path, made, "sauce = 'laion'")
    for more, said in (
        ('[filters.mine]\nfilter = "clip_cosine"\nembeddings = "b32"\n', r"no \[embed\.models\.b32\]"),
        ('[embed.models.b32]\nmodel = "gone.pt"\n', "gone.pt"),
    ):
        (tmp_path / "recipe.toml").write_text(SECTION + more)
        with pytest.raises(UserError, match=said):
            run(tmp_path, made)
    (tmp_path / "recipe.toml").write_text('[embed.models.dfn]\nmodel = "efficientnet_lite0"\n')
    with pytest.raises(UserError, match=r"name a local file that ends in \.safetensors"):
        run(tmp_path, made)


def test_only_its_own_model_embeds_and_only_its_own_filters_score(
    spark: SparkSession, made: Root, tmp_path: Path
) -> None:
    from tests.support.tiny_clip import write_tiny_clip

    write_tiny_clip(tmp_path / "dfn.safetensors")
    readers = '[filters.fit]\nfilter = "clip_cosine"\nembeddings = "dfn"\n[filters.aspect_ratio]\n'
    for written, tables in ((SECTION, ["scores_dfn"]), (SECTION + readers, ["scores_fit"])):
        (tmp_path / "recipe.toml").write_text(written)
        recipe = load_recipe(tmp_path / "recipe.toml")
        check_rest(recipe, made, "dfn")
        own = resolve_recipe(recipe, "dfn")
        for stage in resolve_stages(recipe, "dfn"):
            stage.check(own, made)
            stage.run(spark, own, made)
        assert all(made.units(table) == made.units("downloads") for table in tables)
    assert embedded_units(made, "embeddings_dfn") and not made.exists("embeddings")
    assert not made.exists("scores_aspect_ratio")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_trains_embeds_and_scores_and_trains_once(made: Root, tmp_path: Path) -> None:
    line = curate("train-filter", "--recipe", tmp_path / "recipe.toml", "--root", made.base, "--name", "dfn")
    line += ["--where", "source = 'laion'"]
    for setting in ("phases.0.samples=32", "train.batch_size=8", "optim.warmup_steps=1"):
        line += ["--set-training", setting]
    run_once = subprocess.run(line, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    assert run_once.returncode == 0, run_once.stderr
    assert (
        "12 trusted pairs train dfn.safetensors" in run_once.stdout and "scores_dfn has its scores" in run_once.stdout
    )
    rows = [row for u in made.units("downloads") for row in made.read_parquet(unit_file("scores_dfn", u)).to_pylist()]
    assert len(rows) == NUM_PAIRS and all(-1 <= row["dfn"] <= 1 for row in rows)
    again = subprocess.run(line, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "trusted pairs train" not in again.stdout
