"""Marks: a file of their own that `[scores.NAME]` joins, and nothing in the root."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.browse import marks as marks_module
from curation.browse.answers import Answers
from curation.browse.marks import Marks
from curation.errors import UserError
from curation.recipe.config import load_recipe
from jobs.scoring.joined_columns import plan_joined_scores
from tests.curation.browse.conftest import SECONDS, Asking
from tests.support.small_root import SmallRoot


def test_marks_are_a_table_that_a_recipe_joins(made: SmallRoot, tmp_path: Path) -> None:
    file, (first, second, *_) = tmp_path / "marks.parquet", sorted(made.images)
    marks = Marks(file, made.root)
    assert marks.list() == [] and not file.exists()
    for uid, is_marked in ((second, True), (first, True), (second, True), (second, False)):
        marks.set(uid, is_marked)
    assert pq.read_table(file).to_pydict() == {"uid": [first], "mark": [True]}
    assert Marks(file, made.root).list() == [first]
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[scores.marks]\npaths = ["marks.parquet"]\nmin_coverage = 0.0\n')
    (item,) = plan_joined_scores(load_recipe(str(recipe)))
    assert item.key == "uid" and item.columns == pa.schema([("mark", pa.bool_())])


@pytest.mark.parametrize(
    "table", [pa.table({"uid": ["a"]}), pa.table({"uid": ["a"], "mark": [1]}), pa.table({"mark": [True], "uid": ["a"]})]
)
def test_a_file_of_something_else_is_left_as_it_is(made: SmallRoot, tmp_path: Path, table: pa.Table) -> None:
    file = tmp_path / "other.parquet"
    pq.write_table(table, file)
    before = file.read_bytes()
    with pytest.raises(UserError, match="is no file of marks"):
        Marks(file, made.root)
    assert file.read_bytes() == before


def test_wrong_places_and_wrong_uids_are_one_sentence(
    made: SmallRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    for file, said in (
        (Path(made.root.base) / "marks.parquet", "lies in the root"),
        (tmp_path / "none" / "marks.parquet", "there is no folder"),
        (tmp_path / "text.parquet", "is no file of marks"),
    ):
        with pytest.raises(UserError, match=said):
            Marks(file, made.root)
    marks = Marks(tmp_path / "marks.parquet", made.root)
    with pytest.raises(UserError, match="is no uid"):
        marks.set("x", True)
    monkeypatch.setattr(marks_module, "MAX_MARKS", 0)
    with pytest.raises(UserError, match="begin another file"):
        marks.set("0" * 32, True)
    assert not (tmp_path / "marks.parquet").exists() and marks.list() == []


def test_the_page_marks_what_it_has_shown_and_lists_it(made: SmallRoot, tmp_path: Path) -> None:
    async def run() -> None:
        answers = Answers.open(made.root, SECONDS, None, Marks(tmp_path / "marks.parquet", made.root))
        uid = (await answers.answer("wall", {"where": "kept"}))["rows"][0]["uid"]
        assert await answers.answer("mark", {"uid": uid, "mark": True}, is_change=True) == {"num_marks": 1}
        assert [row["uid"] for row in (await answers.answer("near", {"marked": "1"}))["rows"]] == [uid]
        assert (await answers.answer("start", {}))["marks"]["uids"] == [uid]
        with pytest.raises(UserError, match="was not shown"):
            await answers.answer("mark", {"uid": "0" * 32, "mark": True}, is_change=True)
        with pytest.raises(UserError, match="no question"):
            await answers.answer("mark", {"uid": uid, "mark": True})
        await answers.close()

    asyncio.run(run())


def test_without_a_file_nothing_is_marked(ask: Asking) -> None:
    assert ask("start")["marks"] is None and ask("near", marked="1")["rows"] == []
