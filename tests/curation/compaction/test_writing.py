"""A selection of joined units is published joined: what `curate compact` would make of it, whenever it was killed."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curation.compaction import compact as module
from curation.compaction.compact import compact, undo
from curation.compaction.writing import Runs, enter_written, plan_packed
from curation.garbage import delete_versions, find_old_versions
from curation.recipe.config import Recipe
from curation.schema import SEALED_FORMAT
from curation.storage import Root
from curation.verify import find_differences
from jobs import selection
from tests.support import packed_root, s3_server
from tests.support.packed_root import is_killed, read_units, standing
from tests.support.removal import Killing, contents
from tests.support.small_root import BATCH, VERSION

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RECIPE = Recipe(rules={"first": "caption like '%1%'"})


@pytest.fixture
def groups_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNITS", 3)


def build_two(folder: Path) -> tuple[Root, Root]:
    """The same root, whose units of the second were joined, with a gap among them."""
    packed_root.build(folder / "plain", (0, 1, 2, 3, 5, 6, 7, 9))
    shutil.copytree(folder / "plain", folder / "packed")
    compact(Root(folder / "packed"))
    return Root(folder / "plain"), Root(folder / "packed")


def without_first_version(root: Root) -> dict[str, bytes]:
    return {name: data for name, data in contents(Path(root.path)).items() if VERSION not in name}


@pytest.mark.usefixtures("groups_of_three")
@pytest.mark.parametrize("by_spark", [False, True])
def test_it_is_what_compact_makes_of_a_selection(
    request: pytest.FixtureRequest, tmp_path: Path, by_spark: bool
) -> None:
    plain, packed = build_two(tmp_path)
    if by_spark:
        spark: SparkSession = request.getfixturevalue("spark")
        selection.run(spark, RECIPE, packed)
    else:
        selection.run_here(RECIPE, packed)
    selection.run_here(RECIPE, plain)
    compact(plain)
    made = {name.rpartition("/")[2] for name in standing(Root(packed.path)) if name.startswith("selection/")}
    spans = ("000000-000002", "000003", "000005-000006", "000007", "000009")
    assert made == {f"{BATCH}-{span}.parquet" for span in spans}
    assert without_first_version(packed) == without_first_version(plain)
    assert list(find_differences(Root(packed.path))) == []
    assert compact(Root(packed.path)).num_joined == 0


@pytest.mark.usefixtures("groups_of_three")
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_change_the_selection_before_stays_and_the_command_again_ends_in_the_same_bytes(
    tmp_path: Path, after: bool
) -> None:
    _, whole = build_two(tmp_path)
    shutil.copytree(whole.path, tmp_path / "begun")
    before = {rel: data for rel, data in read_units(whole).items() if rel.startswith(f"selection/{VERSION}/")}
    selection.run_here(RECIPE, whole)
    wanted, number, was_killed = contents(Path(whole.path)), 0, True
    while was_killed:
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        shutil.copytree(tmp_path / "begun", tmp_path / "killed")
        killed = Root(tmp_path / "killed")
        was_killed = is_killed(partial(selection.run_here, RECIPE, killed), Killing(number, after=after))
        found = Root(tmp_path / "killed")
        if (found.current("selection") or {})["fingerprint"] == VERSION:
            assert {rel: found.read_whole(rel) for rel in before} == before
            said = " ".join(find_differences(found))
            assert "missing" not in said and "does not hold" not in said and "packed" not in said
        selection.run_here(RECIPE, Root(tmp_path / "killed"))
        assert contents(tmp_path / "killed") == wanted
        number += 1
    assert number > 5


@pytest.mark.parametrize("command", ["gc", "undo", "other rules"])
def test_a_version_that_was_not_made_current_is_in_nobodys_way(tmp_path: Path, command: str) -> None:
    _, begun = build_two(tmp_path)
    root, number = begun, 0
    while {rel.split("/")[1] for rel in root.places("selection")} == {VERSION}:
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        shutil.copytree(begun.path, tmp_path / "killed")
        root = Root(tmp_path / "killed")
        assert is_killed(partial(selection.run_here, RECIPE, root), Killing(number, after=True))
        root, number = Root(root.path), number + 1
    assert (root.current("selection") or {})["fingerprint"] == VERSION
    assert [said for said in find_differences(root) if not said.startswith("sums/")] == []
    if command == "gc":
        delete_versions(root, find_old_versions(root))
    elif command == "undo":
        assert undo(root) == [] and root.record().format == SEALED_FORMAT
    else:
        selection.run_here(Recipe(rules={"none": "false"}), root)
    again = Root(root.path)
    assert list(find_differences(again)) == []
    selection.run_here(RECIPE, again)
    assert list(find_differences(Root(root.path))) == []


def test_what_an_interrupted_compaction_left_does_not_make_a_root_one_of_packed_files(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    shutil.copytree(root.path, tmp_path / "joined")
    compact(Root(tmp_path / "joined"))
    rel = f"selection/{VERSION}/packed/{BATCH}-000000-000007.parquet"
    root.put(rel, Root(tmp_path / "joined").read_bytes(rel))
    enter_written(root, f"selection/{VERSION}")
    assert not root.own_exists(rel) and root.record().format == SEALED_FORMAT
    assert list(find_differences(root)) == []


def test_units_whose_samples_stand_by_themselves_or_that_are_written_are_published_alone(tmp_path: Path) -> None:
    plain, packed = build_two(tmp_path)
    units = list(packed.units("samples"))
    assert plan_packed(plain, units).starts == range(8)
    assert list(plan_packed(packed, units).starts) == [0, 4, 7]
    assert list(plan_packed(packed, units, {units[5]}).starts) == [0, 4, 5, 6, 7]
    assert list(plan_packed(packed, units[1:]).starts) == [0, 1, 2, 3, 6]


def test_runs_gather_what_belongs_together() -> None:
    runs = Runs(starts=[0, 3, 4])
    assert runs.list_runs(6) == [0, 0, 0, 3, 4, 4] == [runs.run_of(position) for position in range(6)]
    found = runs.gather([(0, "a"), (1, "b"), (2, "c"), (3, "d"), (5, "f")])
    assert list(found) == [[(0, "a"), (1, "b"), (2, "c")], [(3, "d")], [(5, "f")]]


def test_what_is_read_of_a_store_is_read_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server.s3() as endpoint:
        options = s3_server.options(endpoint)
        root = packed_root.build(Root("s3://curation/root", **options), range(12))
        before = read_units(root)
        compact(root)
        again, asked = Root("s3://curation/root", **options), list[str]()
        read = type(again.fs).cat_file

        def count(fs: object, path: str, *args: object, **named: object) -> bytes:
            asked.append(path)
            return bytes(read(fs, path, *args, **named))

        monkeypatch.setattr(type(again.fs), "cat_file", count)
        assert read_units(again) == before
        assert len([path for path in asked if "/packed/" in path]) < 16
        monkeypatch.undo()
        selection.run_here(RECIPE, Root("s3://curation/root", **options))
        assert list(find_differences(Root("s3://curation/root", **options))) == []
