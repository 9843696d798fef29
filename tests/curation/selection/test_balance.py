"""Samples and balance by rules: a larger target contains a smaller one, whatever the order of the rows."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.recipe.rules import parse, passes_sql
from curation.recipe.select_config import SelectConfig
from curation.schema import SAMPLES
from curation.selection.decide import select
from curation.selection.rule_set import find_tables, read_rules
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import BATCH, UNITS, SmallRoot

COLUMNS = {"uid": pa.string(), "status": pa.string(), "concept": pa.string(), "nearest_centroid": pa.int32()}
RULES = {
    "share": "draw('s') < {} / 100.0",
    "share_by_concept": "draw('s') < case when concept = 'c1' then {} / 100.0 else {} / 200.0 end",
    "concept_exactly": "row_number() over (partition by concept order by draw('s')) <= {}",
    "concept_about": "draw('s') < {} / count(*) over (partition by concept)",
    "cluster_exactly": "row_number() over (partition by nearest_centroid order by draw('s')) <= {}",
    "cluster_about": "draw('s') < {} / count(*) over (partition by nearest_centroid)",
}


def keep(text: str, target: int, rows: list[int]) -> set[str]:
    """The uids that the rule keeps of the rows with these numbers, in this order."""
    (rule,) = parse({"it": text.format(target, target)}, COLUMNS)
    uids = [hashlib.md5(str(number).encode()).hexdigest() for number in rows]
    columns = [[f"c{number % 5 % 3}" for number in rows], [number % 4 for number in rows]]
    table = pa.table([uids, ["ok"] * len(rows), *columns], schema=pa.schema(list(COLUMNS.items())))
    with duckdb.connect() as connection:
        connection.register("m", table)
        found = connection.sql(f"select uid from (select uid, {passes_sql(rule)} as passed from m) as e where passed")
        return {row[0] for row in found.fetchall()}


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=12, deadline=None)
@given(target=st.integers(0, 100), more=st.integers(0, 100), seed=st.integers(0, 99))
def test_a_larger_target_contains_a_smaller_one_in_any_order(name: str, target: int, more: int, seed: int) -> None:
    rows = list(range(150))
    few = keep(RULES[name], target, rows)
    random.Random(seed).shuffle(rows)
    assert keep(RULES[name], target, rows) == few
    assert few <= keep(RULES[name], target + more, rows)


def test_targets_are_met() -> None:
    rows = list(range(6_000))
    assert len(keep(RULES["concept_exactly"], 100, rows)) == 3 * 100
    assert len(keep(RULES["cluster_exactly"], 100, rows)) == 4 * 100
    assert abs(len(keep(RULES["concept_about"], 1_000, rows)) - 3_000) < 200
    assert abs(len(keep(RULES["cluster_about"], 1_000, rows)) - 4_000) < 200
    assert abs(len(keep(RULES["share"], 30, rows)) - 1_800) < 200


SCORES = {"scores_matched_entries": pa.schema([("matched_entries", pa.string())])}


def divide(made: SmallRoot, num_units: int) -> None:
    """Cut the rows of the root, and of a table of the entries that they match, into so many units."""
    uids = sorted(made.samples, key=lambda uid: hashlib.md5(f"{num_units} {uid}".encode()).digest())
    made.units = {uid: f"{BATCH}-{number % num_units:06d}" for number, uid in enumerate(uids)}
    for unit in UNITS:
        made.root.remove(f"samples/{unit}.parquet")
    schema = made.root.read_parquet(f"downloads/{UNITS[0]}.parquet").schema
    for unit in sorted(set(made.units.values())):
        own = sorted(uid for uid in uids if made.units[uid] == unit)
        entries = ["\n".join(sorted({f"c{int(uid[:6], 16) % k}" for k in (2, 3, 5)})) for uid in own]
        scores = pa.table({"uid": own, "matched_entries": entries})
        samples = pa.Table.from_pylist([made.samples[uid] for uid in own], SAMPLES)
        downloads = pa.Table.from_pylist([made.downloads[uid] for uid in own], schema)
        for table, rows in (("samples", samples), ("downloads", downloads), ("scores_matched_entries", scores)):
            made.root.publish_parquet(f"{table}/{unit}.parquet", rows)


def test_the_cut_into_units_changes_nothing(tmp_path: Path) -> None:
    texts = {"even": "balance(matched_entries, 12, 't')", "own": "balance(uid, 1, 't')"}
    rules = read_rules(texts, SCORES)
    found = []
    for num_units in (1, 2, 5):
        root = Root(tmp_path / f"{num_units}")
        root.create()
        made = small_root.build(root, 100)
        divide(made, num_units)
        select(root, rules, find_tables(rules, SCORES), SelectConfig())
        files = (root.current("selection") or {})["files"]
        rows = [row for rel in files for row in root.read_parquet(rel).to_pylist()]
        assert len(files) == num_units and len(rows) == 100
        found.append({row["uid"]: row["reason"] for row in rows})
    assert found[0] == found[1] == found[2] and {None, "even"} < set(found[0].values())
