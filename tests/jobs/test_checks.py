"""Every key of the recipe with a wrong value: `curate run` refuses it before Spark starts and writes nothing."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import filters
from curation.recipe.config import Recipe
from jobs.spark import session
from tests.support.command import Command, contents

RECIPE = """
[[sources]]
name = "laion"
paths = ["part-*.parquet"]
where = "clip_similarity >= 0.2"

[rules]
small = "width > 10"
"""
WRONG: dict[str, str] = {
    "sources": '"laion"',
    "sources.0.name": "7",
    "sources.0.paths": '["other-*.parquet"]',
    "sources.0.format": '"laion6b"',
    "sources.0.columns": '{"similarty" = "similarity"}',
    "sources.0.where": '"similarty > 0.3"',
    "download": "7",
    "download.engine": '"wget"',
    "download.image_size": "0",
    "download.resize_mode": '"stretch"',
    "download.only_if_bigger": '"yes"',
    "download.encode_format": '"bmp"',
    "download.encode_quality": "101",
    "download.max_bytes": "0",
    "download.max_pixels": "0",
    "download.max_frames": "0",
    "download.formats": '["svg"]',
    "download.timeout_s": "0",
    "download.connect_timeout_s": "nan",
    "download.first_byte_timeout_s": "-1",
    "download.retries": "-1",
    "download.rounds": "1001",
    "download.max_redirects": "1.5",
    "download.obey_robots": "0",
    "download.user_agent": '"ünïcode"',
    "download.contact": '"two\\nlines"',
    "download.allow_addresses": '["home"]',
    "download.connect_to": '{"*.test" = "localhost:80"}',
    "download.opt_out": '["nowhere.txt"]',
    "download.max_concurrency": "0",
    "download.max_per_host": "0",
    "download.host_interval_s": "-0.1",
    "download.num_decoders": "0",
    "download.measure": '"no"',
    "download.num_rows_per_unit": "0",
    "embed": "7",
    "embed.model": '"efficientnet_lite9"',
    "embed.models": '{b = {model = "nowhere.onnx"}}',
    "embed.batch_size": "0",
    "embed.num_decoders": "0",
    "dedupe": "7",
    "dedupe.tiers": '["exakt"]',
    "dedupe.max_hamming": "13",
    "dedupe.min_entropy": "9.0",
    "dedupe.min_cosine": "1.5",
    "dedupe.verify_from": "1.5",
    "dedupe.verify_below": "-1.5",
    "dedupe.min_correlation": "1.5",
    "dedupe.max_doubtful": "0",
    "dedupe.same_caption": "1",
    "dedupe.against": '["nowhere"]',
    "dedupe.keep": '["prettiness desc"]',
    "dedupe.num_centroids": "0",
    "dedupe.num_probes": "0",
    "dedupe.num_passes": "0",
    "dedupe.max_training_rows": "0",
    "dedupe.max_cluster_rows": "0",
    "dedupe.max_neighbours": "0",
    "dedupe.max_local_edges": "-1",
    "dedupe.seed": "-1",
    "filters": "7",
    "filters.aesthetic_head.head": '"nowhere.npz"',
    "filters.aesthetic_head.embeddings": '"vit_x"',
    "filters.blur.max_side": "0",
    "filters.caption_nouns.language": '"fr"',
    "filters.caption_nouns.max_words": "0",
    "filters.caption_perplexity.max_words": "0",
    "filters.caption_perplexity.model": '"nowhere.arpa"',
    "filters.caption_web.phrases": '"nowhere.txt"',
    "filters.clip_cosine.embeddings": '"vit_x"',
    "filters.concept_match.entries": '"nowhere.txt"',
    "filters.concept_match.match": '"whole"',
    "filters.entropy.max_side": "0",
    "filters.language.max_characters": "0",
    "filters.language.lower_shouting": '"yes"',
    "filters.matched_entries.entries": '"nowhere.txt"',
    "filters.matched_entries.match": '"whole"',
    "filters.nearest_centroid.centroids": '"nowhere.npy"',
    "filters.nearest_centroid.targets": '"nowhere.npy"',
    "filters.nearest_centroid.embeddings": '"vit_x"',
    "filters.opennsfw.model": '"nowhere.onnx"',
    "filters.text_overlap.min_confidence": "2.0",
    "filters.text_overlap.num_threads": "0",
    "filters.zero_shot.against": "[7]",
    "filters.zero_shot.embeddings": '"vit_x"',
    "filters.zero_shot.prompts": "[]",
    "filters.zero_shot.scale": "-1.0",
    "scores": "7",
    "blocklists": "7",
    "rules": "7",
    "rules.small": '"widht > 10"',
    "select": "7",
    "select.memory_gb": "0",
    "select.mix": "7",
    "select.threads": "0",
    "pack": "7",
    "pack.num_samples_per_shard": "0",
    "pack.num_bytes_per_shard": "0",
    "pack.captions": '{"width" = 1.0}',
    "pack.seed": '"x"',
    "folder": "7",
}
"""A wrong value for each key, as TOML."""
ALSO_WRONG = [
    ("filters.blurr", "{}", "blurr"),
    ("scores.mine", '{paths = ["nowhere.parquet"]}', "nowhere.parquet"),
    ("scores.mine", "{paths = []}", "name no paths"),
    ("scores.mine", '{paths = ["part-0.parquet"]}', "neither a column uid nor url"),
    ("scores.mine", '{paths = ["part-0.parquet"], min_coverage = 2.0}', "min_coverage"),
    ("scores.mine", '{paths = ["part-0.parquet"], colums = ["a"]}', "did you mean columns"),
    ("scores.mine", '{paths = ["r.toml"]}', "not readable as parquet"),
    ("select.mix", "{weights = {laion = -1.0}}", "weights"),
    ("select.mix", "{weights = {laion = 0}}", "weights"),
    ("select.mix", "{weights = {coyo = 1.0}}", "no weight for source 'laion'"),
    ("select.mix", "{weights = {laion = 1.0}, rows = 0}", "rows"),
    ("select.mix", "{weights = {laion = 1.0}, seed = -1}", "seed"),
    ("blocklists.bad", '{paths = ["nowhere.txt"]}', "nowhere.txt"),
    ("blocklists.bad", '{paths = ["nowhere-*.txt"]}', "nowhere-"),
    ("blocklists.bad", "{paths = []}", "names no paths"),
    ("blocklists.bad", '{paths = ["r.toml"]}', "line 2"),
    ("blocklists.bad", '{paths = ["hosts.txt"], max_hamming = 13}', "max_hamming"),
    ("blocklists.bad", '{paths = ["hosts.txt"], bits = 3}', "bits"),
    ("blocklists.Bad", '{paths = ["hosts.txt"]}', "small letters"),
    ("filters.blur.max_sides", "3", "max_sides"),
    ("rules.rare", '"quantile(aesthetick, 0.5) < aesthetic"', "aesthetick"),
    ("rules.even", "\"balance(caption, 0, 't')\"", "must be more than 0"),
    ("rules.even", "\"balance(width, 5, 't')\"", "a string is needed"),
    ("rules.even", "\"balance(matched_entries, 5, 't')\"", "no column 'matched_entries'"),
    ("rules.even", '"balance(caption, 5)"', "',' is missing"),
    ("rules.even", '"balance(caption, 5, 7)"', "a seed"),
    ("rules.bad name", '"width > 1"', "bad name"),
    ("pack.captions", '{"better_caption" = 1.0}', "better_caption"),
    ("sources.0.where", '"count(*) over (partition by url) > 1"', "other rows"),
    ("sources.0.where", "\"balance(caption, 5, 't')\"", "other rows"),
    ("sources.0.where", '"aesthetic > quantile(aesthetic, 0.5)"', "other rows"),
    ("download.image_size", "65000", "max_pixels"),
    ("dedupe.keep", '["resolution upwards"]', "upwards"),
    ("sources.0.columns", '{"caption" = "ALT"}', "ALT"),
]
PROMPTS = ['filters.zero_shot.prompts=["a drawing"]', 'filters.zero_shot.against=["a photograph"]']
BESIDE = {
    "filters.aesthetic_head.embeddings": ['filters.aesthetic_head.head="head.npz"'],
    "filters.caption_perplexity.max_words": ['filters.caption_perplexity.model="model.arpa"'],
    "filters.nearest_centroid.embeddings": ['filters.nearest_centroid.centroids="centroids.npy"'],
    "filters.nearest_centroid.targets": ['filters.nearest_centroid.centroids="centroids.npy"'],
    "filters.zero_shot.against": PROMPTS[:1],
    "filters.zero_shot.embeddings": PROMPTS,
    "filters.zero_shot.prompts": PROMPTS[1:],
    "filters.zero_shot.scale": PROMPTS,
}
"""What else a key needs before it can be wrong by itself."""


def keys() -> Iterator[str]:
    """Every key that a recipe may have."""
    for field in dataclasses.fields(Recipe):
        yield field.name
        kind = typing.get_type_hints(Recipe)[field.name]
        if field.name == "sources":
            yield from (f"sources.0.{one.name}" for one in dataclasses.fields(typing.get_args(kind)[0]))
        elif dataclasses.is_dataclass(kind):
            yield from (f"{field.name}.{one.name}" for one in dataclasses.fields(kind))
    for name in filters.names():
        options: Any = importlib.import_module(f"filters.{name}").FILTER
        yield from (f"filters.{name}.{one.name}" for one in dataclasses.fields(options))
    yield "rules.small"


def test_every_key_has_a_wrong_value_here() -> None:
    assert sorted(WRONG) == sorted(keys())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a recipe and its metadata, in which Spark must not start."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("Spark was started")

    monkeypatch.setattr(session, "session", start)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text(RECIPE)
    rows = [{"URL": f"http://h.test/{i}.jpg", "TEXT": f"{i}", "similarity": 0.3} for i in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "part-0.parquet")
    (tmp_path / "hosts.txt").write_text("host.test\n")
    np.savez(tmp_path / "head.npz", weight=np.ones(8, dtype=np.float32), bias=np.zeros(1, dtype=np.float32))
    np.save(tmp_path / "centroids.npy", np.eye(8, dtype=np.float32))
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def run(*overrides: str) -> list[str]:
    flags = [word for override in overrides for word in ("--set", override)]
    return ["run", "--recipe", "r.toml", "--root", "new", *flags]


def test_the_recipe_itself_passes_every_check(folder: Path, command: Command) -> None:
    before = contents(folder)
    assert command(*run()) == 2 and "Spark was started" in command.err
    assert {name for name in contents(folder) if not name.startswith("new")} == set(before)


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_refused_before_anything_runs(folder: Path, command: Command, key: str) -> None:
    before = contents(folder)
    said = command.refuses(*run(*BESIDE.get(key, []), f"{key}={WRONG[key]}"))
    assert contents(folder) == before
    value = WRONG[key].strip('"[]')
    assert key.rpartition(".")[2] in said or value.split(" ")[0] in said, said


@pytest.mark.parametrize(("key", "value", "word"), ALSO_WRONG)
def test_what_only_fits_together_wrongly_is_refused_too(
    folder: Path, command: Command, key: str, value: str, word: str
) -> None:
    before = contents(folder)
    said = command.refuses(*run(f"{key}={value}"))
    assert contents(folder) == before
    assert word in said


def test_a_folder_that_is_no_root_is_refused(folder: Path, command: Command) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "photo.jpg").write_bytes(b"x")
    said = command.refuses("run", "--recipe", "r.toml", "--root", "mine")
    assert "mine is not empty" in said
