"""Every shipped filter, every rule of every shipped recipe and every construct of the rule language: the same rows in
Spark SQL and in DuckDB, with null, NaN, infinities, zeros and empty strings among the rows."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import filters
from curation.recipe import rules
from curation.recipe.config import SHIPPED, load_recipe
from curation.recipe.expressions import Quantile, QuantileValues
from curation.schema import DOWNLOADS, SAMPLES
from filters import caption_nouns, caption_perplexity, opennsfw, text_overlap
from filters._embeddings import EmbeddingFilter
from filters.base import IMAGE, IMAGE_EMBEDDING, READABLE, TEXT_EMBEDDING
from jobs.spark_selection import join_bounds
from tests.support.balances import join_bounds_in_duckdb
from tests.support.fake_onnx import FakeSession
from tests.support.small_root import picture

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NUM_ROWS = 240
STRINGS = [None, "", " ", "a", "en", "A dog, 100% $1 it's \\n", "Ein schöner Hund", "一只猫", "IMG_1.jpg", "cat " * 300]
FLOATS = [None, math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 0.26, 0.28, 0.3, 0.5, 0.8, 4.5, 6016.0, 1e-30]
INTS = [None, 0, 1, -5, 199, 200, 201, 600, 601, 5000, 2**31 - 1]
LANGUAGE = {
    "null_comparison": "caption = null",
    "not_null": "not (caption = 'en')",
    "division_by_zero": "width / height > 1",
    "modulo_by_zero": "width % height = 1 or width % 7 = 3",
    "float_literal": "clip_similarity <= 0.3",
    "float_equality": "clip_similarity = 0.26",
    "float_list": "clip_similarity in (0.26, 0.28)",
    "float_range": "clip_similarity not between 0.28 and 0.3",
    "negative": "clip_similarity >= -1 and - clip_similarity < 0.5",
    "overflow": "width * height * num_bytes > 1e12",
    "quotes": "caption = 'A dog, 100% $1 it''s \\n'",
    "like": "caption like 'A dog, 100\\%%' or caption like '%it''s%'".replace("\\%", "%"),
    "not_like": "caption not like '%a%'",
    "string_order": "caption < 'b' or caption >= '一'",
    "lower": "lower(trim(caption)) = 'a'",
    "contains": "contains(caption, 'it''s') or contains(caption, '')",
    "length": "length(caption) > 3 and length(lower(caption)) <> 1",
    "extremes": "least(width, height, num_bytes) >= 200 or greatest(clip_similarity, punsafe) < 0.5",
    "coalesce": "coalesce(clip_similarity, punsafe, 0) >= 0.3",
    "nullif": "nullif(width, 200) is null",
    "nan_is_null": "clip_similarity is null",
    "boolean": "caption_boilerplate or caption_boilerplate = false",
    "precedence": "not width = 1 and height > 2 or 1 + 2 * 3 = 7 and width is not null",
    "count": "count(*) over (partition by caption) <= 16",
    "count_two_keys": "count(*) over (partition by source, width) between 2 and 5",
    "rank": "row_number() over (partition by domain order by clip_similarity desc, width) <= 7",
    "quantile": "clip_similarity >= quantile(clip_similarity, 0.7)",
    "quantile_of_integers": "width < quantile(width, 0.5)",
    "quantile_by": "clip_similarity >= quantile(clip_similarity, 0.6) over (partition by source)",
    "case": "case when source = 'a' then 0.28 when punsafe > 0.5 then null else 0.26 end <= clip_similarity",
    "case_of_columns": "case when source = 'a' then clip_similarity else 0.3 end = 0.3",
    "case_of_conditions": "case when width > 200 then height > 200 when source is null then true end",
    "case_of_texts": "case when width > 200 then caption else source end = 'en'",
    "draw": "draw('a') < 0.4",
    "draw_by_source": "draw('b') < case when source = 'a' then 0.7 else 0.2 end",
    "draw_by_count": "draw('c') < 5 / count(*) over (partition by domain)",
    "draw_order": "row_number() over (partition by domain order by draw('d') desc) <= 9",
    "balance": "balance(caption, 15, 'e')",
    "balance_of_some": "not balance(case when width > 199 then source end, case when source = 'a' then 2 end, 'f')",
    "pattern": "regexp_matches(caption, '^(A|一).*\\w') or regexp_matches(source, '^$|[^\\s]a')",
    "list": "caption in file('words.txt')",
    "not_list": "lower(trim(caption)) not in file('words.txt')",
}


def resolve(name: str) -> str:
    """The full path of a list that a rule names."""
    return str(Path(__file__).with_name(name))


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Any]]:
    """Options for the filters that cannot do without."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "entries.txt").write_text("dog\nhund\ncat\n", encoding="utf-8")
    np.savez(folder / "head.npz", weight=np.linspace(-1, 1, 8)[None], bias=np.array([5.0]))
    np.save(folder / "centroids.npy", np.eye(8, dtype=np.float32))
    np.save(folder / "targets.npy", np.arange(4))
    return {
        "concept_match": {"entries": str(folder / "entries.txt")},
        "matched_entries": {"entries": str(folder / "entries.txt")},
        "aesthetic_head": {"head": str(folder / "head.npz")},
        "caption_perplexity": {"model": "replaced.arpa"},
        "opennsfw": {"model": "replaced.onnx"},
        "zero_shot": {"prompts": ("a dog",), "against": ("a cat", "a photo")},
        "nearest_centroid": {name: str(folder / f"{name}.npy") for name in ("centroids", "targets")},
    }


class FakeTagger:
    """Takes every word for a noun."""

    def tag_sent(self, tokens: list[str], taglevel: int) -> list[str]:
        return ["NN"] * len(tokens)


class FakeModel:
    """Takes a sentence for the less likely the longer it is."""

    def perplexity(self, sentence: str) -> float:
        return 1.0 + len(sentence)


def _value(field: pa.Field, random_: random.Random, row: int) -> Any:
    if field.name == "uid":
        return f"{row:032x}"
    if field.name == "status":
        return random_.choice(["ok", "ok", "ok", "ok", "http_404", "timeout"])
    if field.type == IMAGE.type:
        return random_.choice([None, b"", b"no picture", picture(row, 8 + row % 40, 9)])
    if field.type == IMAGE_EMBEDDING.type:
        return random_.choice([None, [0.0] * 8, [math.nan] * 8, [random_.gauss(0, 1) for _ in range(8)]])
    if pa.types.is_floating(field.type):
        return random_.choice([*FLOATS, random_.random()])
    return random_.choice(INTS if pa.types.is_integer(field.type) else STRINGS)


@pytest.fixture(scope="module")
def manifest(options: Mapping[str, dict[str, Any]]) -> pa.Table:
    """Dirty rows of every manifest column, with the columns of every shipped filter."""
    random_ = random.Random(7)
    duplicates = [pa.field(name, dtype) for name, dtype in rules.DUPLICATE_COLUMNS.items()]
    fields = [*READABLE.values(), *duplicates]
    columns = [pa.array([_value(f, random_, row) for row in range(NUM_ROWS)], f.type) for f in fields]
    batch = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opennsfw, "_session", lambda path: FakeSession())
        patch.setattr(caption_nouns, "_tagger", lambda language: FakeTagger())
        patch.setattr(caption_perplexity, "_model", lambda path: FakeModel())
        patch.setattr(text_overlap, "read_lines", lambda pixels, sure: [(np.eye(4)[:, :2] * pixels.shape[0], "a dog")])
        for name in filters.names():
            item = filters.build(name, options.get(name, {}))
            item = item.bind(lambda texts: np.eye(8)[: len(texts)]) if isinstance(item, EmbeddingFilter) else item
            scored = item.apply(batch)
            for field, column in zip(scored.schema, scored.columns, strict=True):
                batch = batch.append_column(field, column)
    return pa.table(batch.drop_columns([IMAGE.name, IMAGE_EMBEDDING.name, TEXT_EMBEDDING.name]))


def _recipes() -> list[Path]:
    return sorted(SHIPPED.glob("*.toml"))


def all_rules() -> dict[str, str]:
    """Every rule of every shipped recipe, and every construct of the language."""
    shipped = {f"{p.stem}.{name}": text for p in _recipes() for name, text in load_recipe(p).rules.items()}
    return shipped | {f"language.{name}": text for name, text in LANGUAGE.items()}


def _types(manifest: pa.Table) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in manifest.schema}


def test_there_are_recipes_and_each_filter_has_a_column(manifest: pa.Table) -> None:
    assert len(_recipes()) >= 9
    assert set(manifest.column_names) > {*SAMPLES.names, *DOWNLOADS.names, "aspect_ratio", "language"}


def test_rules_mean_the_same_in_spark_and_duckdb(spark: SparkSession, manifest: pa.Table) -> None:
    types = _types(manifest)
    wanted = sorted({q for rule in rules.parse(all_rules(), types, resolve=resolve) for q in rule.quantiles})
    connection = duckdb.connect()
    connection.register("rows", manifest)
    spark.createDataFrame(manifest).createOrReplaceTempView("rows")
    quantiles: dict[Quantile, QuantileValues] = {}
    for quantile in wanted:
        sql = rules.quantile_sql("rows", quantile, types)
        ours, theirs = (
            {tuple(row) for row in rows} for rows in (connection.sql(sql).fetchall(), spark.sql(sql).collect())
        )
        assert ours == theirs and ours, quantile
        quantiles[quantile] = {tuple(row[:-1]): row[-1] for row in ours}
    parsed = rules.parse(all_rules(), types, quantiles, resolve)
    _balance(spark, connection, parsed)
    selected = ", ".join(f"{rules.passes_sql(rule)} as r{i}" for i, rule in enumerate(parsed))
    sql = f"select m.uid, {rules.reason_sql(parsed)} as reason, {selected} from rows as m"
    in_duckdb = connection.sql(sql).to_arrow_table().sort_by("uid").to_pydict()
    in_spark = spark.sql(sql).toArrow().sort_by("uid").to_pydict()
    for i, rule in enumerate(parsed):
        rows = [n for n in range(NUM_ROWS) if in_duckdb[f"r{i}"][n] != in_spark[f"r{i}"][n]]
        assert not rows, f"{rule.name} ({rule.text}) differs on {manifest.slice(rows[0], 1).to_pylist()}"
    assert in_duckdb == in_spark


def _balance(spark: SparkSession, connection: duckdb.DuckDBPyConnection, parsed: list[rules.Rule]) -> None:
    """Give the rows of both engines the bounds that rules compare with. They are the same doubles."""
    balances = sorted(balance for rule in parsed for balance in rule.balances)
    join_bounds_in_duckdb(connection, "rows", balances)
    join_bounds(spark, spark.table("rows"), balances).createOrReplaceTempView("rows")
    for balance in balances:
        sql = f"select uid, {balance.bound} from rows order by uid"
        ours, theirs = connection.sql(sql).fetchall(), [tuple(row) for row in spark.sql(sql).collect()]
        assert ours == theirs and len({bound for _, bound in ours}) > 9, balance


def test_each_construct_passes_some_rows_and_drops_some(manifest: pa.Table) -> None:
    """Guards the test above: a condition that is constant would agree in any two engines."""
    types = _types(manifest)
    connection = duckdb.connect()
    connection.register("rows", manifest)
    by_source: dict[tuple[str | None, ...], float | None] = dict.fromkeys([(None,), ("a",), ("en",), (" ",)], 0.3)
    quantiles: dict[Quantile, QuantileValues] = {
        Quantile("clip_similarity", 0.7): {(): 0.4},
        Quantile("width", 0.5): {(): 200.0},
        Quantile("clip_similarity", 0.6, ("source",)): by_source,
    }
    parsed = rules.parse(LANGUAGE, types, quantiles, resolve)
    join_bounds_in_duckdb(connection, "rows", [balance for rule in parsed for balance in rule.balances])
    for rule in parsed:
        passed = {row[0] for row in connection.execute(f"select {rules.passes_sql(rule)} from rows as m").fetchall()}
        assert passed == ({False} if rule.name == "null_comparison" else {True, False}), rule.name


def test_null_and_nan_never_pass(manifest: pa.Table) -> None:
    """Every shipped rule but those that ask for null drops a row of which nothing is known."""
    unknown = {f.name: math.nan if pa.types.is_floating(f.type) else None for f in manifest.schema}
    rows = pa.Table.from_pylist([unknown | {"status": "ok", "uid": "0" * 32}], manifest.schema)
    connection = duckdb.connect()
    connection.register("rows", rows)
    shipped = {name: text for name, text in all_rules().items() if not name.startswith("language.")}
    parsed = rules.parse(shipped, _types(manifest), {Quantile("clip_score_l14", 0.7): {(): 0.0}})
    join_bounds_in_duckdb(connection, "rows", [balance for rule in parsed for balance in rule.balances])
    for rule in parsed:
        passed = connection.execute(f"select {rules.passes_sql(rule)} from rows as m").fetchone()
        asks_for_null = "is null" in rule.text or rule.is_global and "over" in rule.text
        assert passed == (asks_for_null,), rule.name


def test_filters_never_write_nan(manifest: pa.Table) -> None:
    written = [f for name in filters.names() for f in _filter_class(name).writes]
    for field in written:
        if pa.types.is_floating(field.type):
            values = manifest[field.name].to_pylist()
            assert any(v is not None for v in values) and not any(v is not None and math.isnan(v) for v in values)


def _filter_class(name: str) -> type[filters.Filter]:
    import importlib

    return importlib.import_module(f"filters.{name}").FILTER
