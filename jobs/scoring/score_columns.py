"""The columns that a recipe's scores have, and the rules that ask for them. Nothing here needs Spark."""

from __future__ import annotations

import pyarrow as pa

import filters
from curation.download.withdrawn import resolve_lists
from curation.errors import UserError
from curation.recipe.config import Recipe
from curation.selection.rule_set import RuleSet, find_tables, read_rules
from curation.storage import Root
from curation.tables import SCORES, count_all_captions, scores_table
from filters.base import Filter
from jobs.scoring.joined_columns import build_joined_schemas

SELECTION_READS = ("samples", "downloads", "duplicates")
"""Tables that a selection reads, those of scores apart."""
PACKING_READS = ("samples", "downloads", SCORES, "selection")
"""Tables that a packing reads; SCORES stands for every table of scores."""
PACKING_WRITES = ("train", "train_index")


def build_filters(recipe: Recipe) -> dict[str, Filter]:
    """The recipe's filters by name. Raises UserError for bad options or two filters that write one column."""
    built = {name: filters.build(name, options, recipe.resolve) for name, options in recipe.filters.items()}
    owners: dict[str, str] = {}
    for name, item in built.items():
        for column in item.writes.names:
            if owners.setdefault(column, name) != name:
                raise UserError(f"Filters {owners[column]} and {name} both write {column}: keep one of them.")
    return built


def resolve_num_captions(recipe: Recipe, root: Root) -> int:
    """Columns of captions that samples have once the sources of `recipe` are in `root`."""
    return count_all_captions(root, (source.num_captions for source in recipe.sources))


def build_score_schemas(recipe: Recipe) -> dict[str, pa.Schema]:
    """Score tables of the recipe's filters and `[scores.NAME]`, and the columns they add. Raises UserError."""
    return {scores_table(name): item.writes for name, item in build_filters(recipe).items()} | check_owners(recipe)


def check_owners(recipe: Recipe) -> dict[str, pa.Schema]:
    """The joined tables. Raises UserError when one of their columns is a filter's too."""
    joined = build_joined_schemas(recipe)
    written = {column.lower(): name for name, item in build_filters(recipe).items() for column in item.writes.names}
    for table, schema in joined.items():
        for column in schema.names:
            if column.lower() in written:
                name = table.removeprefix(SCORES)
                raise UserError(f"[scores.{name}] and filter {written[column.lower()]} both give {column}: rename one.")
    return joined


def plan_rules(recipe: Recipe, root: Root) -> tuple[RuleSet, dict[str, list[str]]]:
    """The rules, and the tables with the columns that they need."""
    scores = build_score_schemas(recipe)
    refused, num_captions = resolve_lists(recipe), resolve_num_captions(recipe, root)
    rules = read_rules(recipe.rules, scores, recipe.resolve, refused, num_captions, recipe.select.mix)
    return rules, find_tables(rules, scores)
