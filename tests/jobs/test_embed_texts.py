"""Vectors of captions beside those of pictures, and several models side by side in one root."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.recipe.config import EmbedConfig, NamedModelConfig, Recipe
from curation.settings import from_dict
from curation.storage import Root
from curation.tables import embedded_units, metadata_file, samples_file, texts_file, vectors_file
from curation.verify import verify
from curation.verify.sealing import seal
from jobs.embed import check, run
from tests.support import small_root
from tests.support.embedding_folder import CAPTIONS, write_vectors_folder
from tests.support.picture_root import fill, scene

torch = pytest.importorskip("torch")


def encoded(seed: int) -> bytes:
    sink = io.BytesIO()
    scene(seed).save(sink, "JPEG")
    return sink.getvalue()


def read_texts(root: Root, table: str) -> dict[str, np.ndarray]:
    """The vectors of captions by caption."""
    found: dict[str, np.ndarray] = {}
    for unit in embedded_units(root, table):
        rows = root.read_parquet(samples_file(unit), ["uid", "caption"]).to_pylist()
        captions = {row["uid"]: row["caption"] for row in rows}
        uids = root.read_parquet(metadata_file(unit, table))["uid"].to_pylist()
        vectors = np.load(io.BytesIO(root.read_bytes(texts_file(unit, table))))
        found |= {captions[uid]: vector for uid, vector in zip(uids, vectors, strict=True)}
    return found


def test_each_model_has_its_own_table_and_a_clip_embeds_captions(
    spark: SparkSession, root: Root, tmp_path: Path
) -> None:
    from tests.support.tiny_clip import write_tiny_clip
    from trainer.data.tokenizer import tokenize

    fill(root, [(caption, encoded(number), {}) for number, caption in enumerate(CAPTIONS)])
    model = write_tiny_clip(tmp_path / "tiny.safetensors")
    published = write_vectors_folder(tmp_path / "laion")
    named = {"toy": NamedModelConfig(model="tiny.safetensors")}
    recipe = Recipe(folder=str(tmp_path), embed=EmbedConfig(model="laion", models=named, batch_size=3))
    run(spark, recipe, root)
    assert embedded_units(root) == embedded_units(root, "embeddings_toy") == root.units("downloads")
    with torch.inference_mode():
        wanted = torch.nn.functional.normalize(model.encode_text(tokenize(CAPTIONS)), dim=1).numpy()
    made = read_texts(root, "embeddings_toy")
    for caption, vector in zip(CAPTIONS, wanted, strict=True):
        assert np.allclose(made[caption], vector, atol=1e-3) if caption else np.isnan(made[caption]).all()
    made = read_texts(root, "embeddings")
    assert all(np.array_equal(made[caption], vector) for caption, vector in published.items())
    assert np.isnan(made[CAPTIONS[3]]).all(), "the folder lacks it"


def test_captions_of_a_root_that_has_vectors_of_pictures_alone_are_embedded_and_nothing_else(
    spark: SparkSession, root: Root, tmp_path: Path
) -> None:
    fill(root, [(caption, encoded(number), {}) for number, caption in enumerate(CAPTIONS)])
    write_vectors_folder(tmp_path / "laion")
    recipe = Recipe(folder=str(tmp_path), embed=EmbedConfig(model="laion"))
    run(spark, recipe, root)
    before = read_texts(root, "embeddings")
    unit = root.units("downloads")[0]
    root.remove(texts_file(unit))
    root.publish(vectors_file(unit), b"left as they are")
    run(spark, recipe, root)
    assert root.read_bytes(vectors_file(unit)) == b"left as they are"
    after = read_texts(root, "embeddings")
    assert all(np.array_equal(before[caption], after[caption], equal_nan=True) for caption in CAPTIONS)


def test_vectors_of_captions_stand_under_sums_and_are_verified(root: Root) -> None:
    made = small_root.finish(root)
    for unit in small_root.UNITS:
        for table in ("embeddings", "embeddings_toy"):
            root.publish(metadata_file(unit, table), root.read_bytes(metadata_file(unit)))
            for rel in (vectors_file(unit, table), texts_file(unit, table)):
                root.publish(rel, root.read_bytes(vectors_file(unit)))
    assert made.images and seal(root) is None
    rel = texts_file(small_root.UNITS[0], "embeddings_toy")
    kept = root.read_bytes(rel)
    Path(root.full(rel)).write_bytes(kept[:-2] + b"XX")
    said = verify(root) or ""
    assert f"{rel} does not hold what was published" in said and "delete it and run `curate embed` again" in said
    Path(root.full(rel)).unlink()
    assert f"{rel} is missing: run `curate embed` again" in (verify(root) or "")


def test_a_named_model_that_is_wrong_is_refused_by_its_name(root: Root, tmp_path: Path) -> None:
    recipe = Recipe(folder=str(tmp_path), embed=EmbedConfig(models={"l14": NamedModelConfig(model="gone.pt")}))
    with pytest.raises(UserError, match=r"embed\.models\.l14\.model: 'gone\.pt' is no known embedder"):
        check(recipe, root)
    with pytest.raises(UserError, match="small letters"):
        from_dict(EmbedConfig, {"models": {"L/14": {"model": "x"}}}, "[embed]")
