"""A root with duplicates and the scores of every filter that a shipped recipe names, drawn by chance."""

from __future__ import annotations

import importlib
import random
from typing import Any

import pyarrow as pa

import filters
from curation.recipe.config import SHIPPED, load_recipe
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot

NUM_ROWS = 300


def shipped_recipes() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def build_scored_root(root: Root) -> SmallRoot:
    """NUM_ROWS rows in two units; a seventh of the pictures is removed as duplicates."""
    made = small_root.build(root, NUM_ROWS)
    uids = sorted(made.images)
    small_root.duplicates(made, {uid: uids[0] for uid in uids[1::7]})
    for name in sorted({"caption_boilerplate"}.union(*(load_recipe(name).filters for name in shipped_recipes()))):
        _write_scores(made, name)
    return made


def _write_scores(made: SmallRoot, name: str) -> None:
    cls: type[filters.Filter] = importlib.import_module(f"filters.{name}").FILTER
    chance, schema = random.Random(name), pa.schema([("uid", pa.string()), *cls.writes])
    for unit in UNITS:
        uids = sorted(uid for uid in made.images if made.units[uid] == unit)
        rows = [{"uid": uid} | {field.name: _draw(field, chance) for field in cls.writes} for uid in uids]
        made.root.publish_parquet(f"scores_{name}/{unit}.parquet", pa.Table.from_pylist(rows, schema))


def _draw(field: pa.Field, chance: random.Random) -> Any:
    dtype = field.type
    if chance.random() < 0.1:
        return None
    if field.name == "matched_entries":
        return "\n".join(sorted(chance.sample(["cat", "dog", "hot dog", "it's", "猫"], chance.randint(1, 4))))
    if pa.types.is_boolean(dtype):
        return chance.random() < 0.5
    if pa.types.is_integer(dtype):
        return chance.choice([0, 1, 3, 4, 8, 40, 2_000])
    return chance.choice(["en", "de"]) if pa.types.is_string(dtype) else chance.uniform(0, 1)
