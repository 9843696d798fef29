"""What a section `[scores.NAME]` joins and adds, found out without Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.recipe.config import Recipe, ScoresConfig
from jobs.scoring.joined_columns import build_joined_schemas, plan_joined_scores


def _write(folder: Path, columns: dict[str, Any], name: str = "mine-0.parquet") -> None:
    pq.write_table(pa.table(columns), folder / name)


def _recipe(folder: Path, name: str = "mine") -> Recipe:
    return Recipe(scores={name: ScoresConfig(paths=("mine-*.parquet",))}, folder=str(folder))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"uid": ["a"]}, "no column beside uid"),
        ({"uid": ["a"], "Width": [1]}, "the manifest has a column 'Width'"),
        ({"uid": ["a"], "my score": [1]}, "cannot be named in rules"),
        ({"uid": ["a"], "list": [[1]]}, "is of type list"),
        ({"mark": [1]}, "neither a column uid nor url"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    _write(tmp_path, columns)
    with pytest.raises(UserError, match=words):
        plan_joined_scores(_recipe(tmp_path))


def test_the_name_of_a_filter_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, {"uid": ["a"], "mark": [1.0]})
    with pytest.raises(UserError, match="has the name of a filter"):
        plan_joined_scores(_recipe(tmp_path, "blur"))


def test_columns_get_the_types_of_score_tables_and_files_must_agree(tmp_path: Path) -> None:
    _write(tmp_path, {"url": ["a"], "mark": [1.0], "count": [1], "good": [True], "word": ["w"]})
    fields = [("mark", pa.float32()), ("count", pa.int64()), ("good", pa.bool_()), ("word", pa.string())]
    assert build_joined_schemas(_recipe(tmp_path)) == {"scores_mine": pa.schema(fields)}
    _write(tmp_path, {"url": ["a"], "other": [1.0]}, "mine-1.parquet")
    with pytest.raises(UserError, match="mine-1.parquet has other columns than"):
        plan_joined_scores(_recipe(tmp_path))
