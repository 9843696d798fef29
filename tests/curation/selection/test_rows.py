"""Tables of one unit side by side: whatever the order of their rows, each row has its own values."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation.download.withdrawn import Lists, resolve_lists
from curation.recipe.config import DownloadConfig, Recipe
from curation.selection.rows import join_pictures, join_unit
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot

UNIT = UNITS[0]
TABLES = {
    "samples": ["source", "caption"],
    "downloads": ["status", "width"],
    "scores_a": ["a"],
    "scores_b": ["b"],
    "duplicates": ["duplicate_of"],
}


@pytest.fixture
def made(root: Root) -> SmallRoot:
    """Scores of all pictures, in the order of samples and in another one, without some."""
    made = small_root.build(root)
    uids = sorted(uid for uid in made.images if made.units[uid] == UNIT)
    root.publish_parquet(f"scores_a/{UNIT}.parquet", pa.table({"uid": uids, "a": [f"a {uid}" for uid in uids]}))
    mixed = random.Random(3).sample(uids[2:], len(uids) - 2)
    root.publish_parquet(f"scores_b/{UNIT}.parquet", pa.table({"uid": mixed, "b": [f"b {uid}" for uid in mixed]}))
    return made


def list_expected(made: SmallRoot) -> list[dict[str, Any]]:
    """The oracle: each row of the unit by itself."""
    uids = sorted(uid for uid, unit in made.units.items() if unit == UNIT)
    unscored = sorted(uid for uid in uids if uid in made.images)[:2]
    return [
        {
            "uid": uid,
            "source": made.samples[uid]["source"],
            "caption": made.samples[uid]["caption"],
            "status": made.downloads[uid]["status"],
            "width": made.downloads[uid]["width"],
            "a": f"a {uid}" if uid in made.images else None,
            "b": f"b {uid}" if uid in made.images and uid not in unscored else None,
        }
        for uid in uids
    ]


def test_each_row_has_its_own_values(made: SmallRoot) -> None:
    assert join_unit(made.root, UNIT, TABLES).to_pylist() == list_expected(made)


def test_pictures_are_the_same_rows_and_the_others_are_counted(made: SmallRoot) -> None:
    rows, lost = join_pictures(made.root, UNIT, TABLES)
    expected = list_expected(made)
    came = [{"place": place, **row} for place, row in enumerate(expected) if row["status"] == "ok"]
    assert rows.to_pylist() == came and 0 < len(came) < len(expected)
    assert lost == Counter((row["source"], row["status"]) for row in expected if row["status"] != "ok")


def test_pictures_that_a_list_names_are_counted_with_the_others(made: SmallRoot, tmp_path: Path) -> None:
    (tmp_path / "gone.txt").write_text("host1.test\n")
    recipe = replace(Recipe(), download=DownloadConfig(opt_out=(str(tmp_path / "gone.txt"),)))
    lists: Lists = resolve_lists(recipe)
    marked = join_unit(made.root, UNIT, TABLES, lists).to_pylist()
    rows, lost = join_pictures(made.root, UNIT, TABLES, lists)
    assert [row["uid"] for row in rows.to_pylist()] == [row["uid"] for row in marked if row["status"] == "ok"]
    assert lost == Counter((row["source"], row["status"]) for row in marked if row["status"] != "ok")
    withdrawn = [row for row in marked if row["status"] == "withdrawn"]
    assert withdrawn and all(made.samples[row["uid"]]["domain"] == "host1.test" for row in withdrawn)


def test_uids_that_are_known_by_their_stored_bytes_are_not_read_again(made: SmallRoot) -> None:
    known: dict[bytes, None] = {}
    first, stored = made.root.read_keyed(f"scores_a/{UNIT}.parquet", ["a"], known)
    known[stored] = None
    again, same = made.root.read_keyed(f"scores_a/{UNIT}.parquet", ["a"], known)
    other, another = made.root.read_keyed(f"scores_b/{UNIT}.parquet", ["b"], known)
    assert first.column_names == ["uid", "a"] and again.column_names == ["a"] and other.column_names == ["uid", "b"]
    assert same == stored != another and again["a"].equals(first["a"])


def test_all_columns_are_read_where_none_is_named_and_rows_are_counted_by_the_end_of_the_file(made: SmallRoot) -> None:
    file = f"downloads/{UNIT}.parquet"
    whole = made.root.read_parquet(file)
    found, stored = made.root.read_keyed(file, None, ())
    without, _ = made.root.read_keyed(file, None, {stored})
    assert found.equals(whole) and without.equals(whole.drop_columns("uid"))
    assert made.root.count_rows(file) == len(whole) > 0
