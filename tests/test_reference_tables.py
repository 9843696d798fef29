"""Tables in documents that list what there is list all of it, and nothing else."""

from __future__ import annotations

import importlib
import re
from contextlib import closing
from dataclasses import fields

import pyarrow as pa
import pytest

import filters
from curation import Manifest, schema
from curation.download.rounds import TRIED_AGAIN
from curation.fetch.client import RETRIED
from curation.recipe.config import DownloadConfig, load_recipe
from curation.schema import RejectReason, Status
from curation.storage import Root
from tests.support.documents import PROJECT, page
from trainer import models
from trainer.config import Config

TABLES = {
    "samples": schema.SAMPLES,
    "rejects": schema.REJECTS,
    "forgotten": schema.TOMBSTONES,
    "listings": schema.LISTINGS,
    "downloads": schema.DOWNLOADS,
    "duplicates": schema.DUPLICATES,
    "selection": schema.SELECTION,
    "train_index": schema.TRAIN_INDEX,
}
TYPES = {"string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32(), "bool": pa.bool_()}
FILTER_TYPES = TYPES | {"float": pa.float32(), "int": pa.int32()}


def read_rows(name: str, heading: str) -> list[list[str]]:
    """The cells of the tables below `heading` of a page, row by row."""
    section = re.split(r"^#+ ", page(name).prose.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def list_codes(cell: str) -> list[str]:
    """What stands in backticks in a cell, in order."""
    return re.findall(r"`([^`]+)`", cell)


def first_column(name: str, heading: str) -> set[str]:
    """What stands in backticks in the first column of the tables below `heading` of a page."""
    return {code for row in read_rows(name, heading) for code in list_codes(row[0])}


def read_types(cell: str, types: dict[str, pa.DataType]) -> list[tuple[str, pa.DataType]]:
    """The columns that a cell names in backticks, each with the type that is named next behind it."""
    words = re.findall(rf"`(\w+)`|\b({'|'.join(types)})\b", re.sub(r"\([^)]*\)", "", cell))
    found, waiting = list[tuple[str, pa.DataType]](), list[str]()
    for name, dtype in words:
        waiting += [name] if name else []
        if dtype:
            found += [(each, types[dtype]) for each in waiting]
            waiting = []
    return found


@pytest.mark.parametrize("table", TABLES)
def test_columns_of_a_table_are_listed_in_their_order_with_their_types(table: str) -> None:
    (cell,) = [row[1] for row in read_rows("docs/architecture.md", "Columns") if row[0] == table]
    columns = [(field.name, field.type) for field in TABLES[table]]
    assert read_types(re.split(r";|: ", cell)[0] if table != "downloads" else cell, TYPES)[: len(columns)] == columns


def test_a_wrong_type_of_a_column_is_noticed() -> None:
    assert read_types("`a` (8 hex), `b` string, `c` int32", TYPES) == [
        ("a", pa.string()),
        ("b", pa.string()),
        ("c", pa.int32()),
    ]


def test_every_reason_of_rejects_is_listed() -> None:
    (cell,) = [row[1] for row in read_rows("docs/architecture.md", "Columns") if row[0] == "rejects"]
    listed = re.findall(r"\w+", re.sub(r"\([^)]*\)", "", cell.partition("string: ")[2]))
    assert listed == [reason.value for reason in RejectReason]


def test_every_filter_is_in_its_table() -> None:
    assert first_column("docs/filters.md", "The filters") == set(filters.names())


@pytest.mark.parametrize("name", filters.names())
def test_what_a_filter_reads_writes_and_takes_is_in_its_row(name: str) -> None:
    (row,) = [row for row in read_rows("docs/filters.md", "The filters") if row[0] == f"`{name}`"]
    cls: type[filters.Filter] = importlib.import_module(f"filters.{name}").FILTER
    assert row[1] == ", ".join(cls.reads)
    written = [(field.name, field.type) for field in cls.writes]
    listed = read_types(row[2], FILTER_TYPES)
    assert fill_gaps(row[2], [name for name, _ in listed], cls.writes.names) == cls.writes.names
    assert all(pair in written for pair in listed)
    assert set(list_codes(row[3])) == {field.name for field in fields(cls)}


def fill_gaps(cell: str, listed: list[str], names: list[str]) -> list[str]:
    """The columns `listed`, with those of `names` between two that `…` stands between."""
    found = list[str]()
    for name in listed:
        if found and re.search(rf"`{found[-1]}` … `{name}`", cell):
            found += names[names.index(found[-1]) + 1 : names.index(name)]
        found.append(name)
    return found


def test_filters_and_rules_of_each_recipe_are_in_its_row() -> None:
    for name, _, named, rules in read_rows("docs/filters.md", "Recipes")[1:]:
        recipe = load_recipe(name.strip("`"))
        assert (list_codes(named), list_codes(rules)) == ([*recipe.filters], [*recipe.rules]), name


def test_every_recipe_of_a_published_filtering_is_in_its_table() -> None:
    shipped = {path.stem for path in (PROJECT / "curation" / "recipes").glob("*.toml")}
    assert first_column("docs/filters.md", "Recipes") == shipped - {"demo", "flickr8k", "own-pictures"}


def test_every_setting_of_the_download_is_in_its_table() -> None:
    assert first_column("docs/download.md", "Settings") == {field.name for field in fields(DownloadConfig)}


def test_every_status_is_in_its_table() -> None:
    assert first_column("docs/download.md", "Statuses") == {status.value for status in Status}


def test_which_statuses_are_tried_again_is_said_of_each() -> None:
    for names, _, again, _ in read_rows("docs/download.md", "Statuses")[1:]:
        for status in map(Status, list_codes(names)):
            assert ("at once" in again, "rounds" in again) == (status in RETRIED, status in TRIED_AGAIN), status


def test_every_model_is_in_its_table() -> None:
    (table, *_) = page("docs/models.md").prose.split("\n## ")
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == set(models.names())


def test_every_section_of_a_training_configuration_is_in_its_table() -> None:
    named = {code.strip("[]").partition(".")[0] for code in first_column("docs/training.md", "Configuration")}
    assert named == {field.name for field in fields(Config)}


def test_every_view_of_the_manifest_is_in_its_table(root: Root) -> None:
    listed = first_column("docs/manifest.md", "Views") - {"scores_FILTER"}
    with closing(Manifest(root)) as manifest:
        views = {row[0] for row in manifest.query("select view_name from duckdb_views() where not internal").fetchall()}
    assert listed == views
