"""Tables in documents that list what there is list all of it, and nothing else."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import fields

import filters
from curation import Manifest
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from curation.storage import Root
from tests.support.documents import PROJECT, page
from trainer import models
from trainer.config import Config


def first_column(name: str, heading: str) -> set[str]:
    """What stands in backticks in the first column of the tables below `heading` of a page."""
    section = re.split(r"^#+ ", page(name).prose.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE)
    return {code for cell in cells for code in re.findall(r"`([^`]+)`", cell)}


def test_every_filter_is_in_its_table() -> None:
    assert first_column("docs/filters.md", "The filters") == set(filters.names())


def test_every_recipe_of_a_published_filtering_is_in_its_table() -> None:
    shipped = {path.stem for path in (PROJECT / "curation" / "recipes").glob("*.toml")}
    assert first_column("docs/filters.md", "Recipes") == shipped - {"demo", "flickr8k", "own-pictures"}


def test_every_setting_of_the_download_is_in_its_table() -> None:
    assert first_column("docs/download.md", "Settings") == {field.name for field in fields(DownloadConfig)}


def test_every_status_is_in_its_table() -> None:
    assert first_column("docs/download.md", "Statuses") == {status.value for status in Status}


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
