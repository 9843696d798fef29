"""Rules over partitions, against windows over all rows: the same reasons, whatever stands in between and beside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curation.recipe.config import DownloadConfig, Recipe
from curation.recipe.select_config import BlocklistConfig, MixConfig, SelectConfig
from curation.selection import decide
from curation.selection.engine import Engine, open_engine
from curation.selection.partitions import KEPT, ask_apart, keep_rows
from curation.selection.rule_set import read_rules
from curation.storage import Root
from jobs import selection
from tests.support.command import contents
from tests.support.scored_root import build_scored_root
from tests.support.small_root import SmallRoot

RULES = {
    "sharp": "clip_similarity >= 0.21",
    "few": "count(*) over (partition by aesthetic) <= 13",
    "safe": "punsafe <= 0.9",
    "later": "row_number() over (partition by pwatermark, source order by aesthetic desc) <= 6",
    "deduplicated": "duplicate_of is null",
    "alone": "count(*) over (partition by pwatermark, aesthetic) < 1 or count(*) over (partition by caption) = 1",
    "top": "clip_similarity >= quantile(clip_similarity, 0.2) over (partition by source)",
}
"""Rules of a row alone between those of others; the keys of one partition lie in those of another, some are null."""
MIX = SelectConfig(mix=MixConfig(weights={"laion": 1.0, "coyo": 1.0}, rows=10))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRoot:
    root = Root(tmp_path_factory.mktemp("partitions") / "root")
    root.create()
    return build_scored_root(root)


def _select(root: Root, recipe: Recipe) -> tuple[dict[str, bytes], Counter[str | None]]:
    """The bytes of the selection, and how often it gives each reason."""
    root.remove("selection")
    selection.run_here(recipe, root)
    files = (root.current("selection") or {})["files"]
    reasons = Counter(reason for rel in files for reason in root.read_parquet(rel)["reason"].to_pylist())
    return contents(Path(root.full("selection"))), reasons


def _query(engine: Engine, sql: str) -> list[dict[str, Any]]:
    return [row for batch in engine.query(sql) for row in batch.to_pylist()]


@pytest.mark.parametrize("limits", [SelectConfig(), MIX], ids=["all", "mix"])
@pytest.mark.parametrize("turned", [False, True], ids=["in order", "turned"])
def test_a_selection_is_that_of_windows_over_all_rows(
    made: SmallRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: SelectConfig, turned: bool
) -> None:
    (tmp_path / "gone.txt").write_text("host1.test\n")
    (tmp_path / "hosts.txt").write_text("host2.test\n")
    rules = dict(reversed(RULES.items())) if turned else RULES
    recipe = Recipe(
        rules=rules,
        select=limits,
        download=DownloadConfig(opt_out=(str(tmp_path / "gone.txt"),)),
        blocklists={"hosts": BlocklistConfig(paths=(str(tmp_path / "hosts.txt"),))},
    )
    found, reasons = _select(made.root, recipe)
    monkeypatch.setattr(decide, "has_partitions", lambda _: False)
    assert _select(made.root, recipe) == (found, reasons)
    assert {None, "opted_out", "blocklist:hosts", "download:timeout", "few", "later", "alone", "top"} < set(reasons)
    assert limits is not MIX or reasons[None] == 10


def test_rules_of_partitions_alone_need_no_others(made: SmallRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(rules={"few": RULES["few"]})
    found, reasons = _select(made.root, recipe)
    assert reasons["few"] > 0
    monkeypatch.setattr(decide, "has_partitions", lambda _: False)
    assert _select(made.root, recipe)[0] == found


def test_only_pictures_that_may_share_a_partition_are_asked_with_windows(made: SmallRoot, tmp_path: Path) -> None:
    """Pictures of one source and caption share the partition of the caption, so one list of hashes does for both."""
    texts = {"a": "count(*) over (partition by caption) < 5", "b": "count(*) over (partition by source, caption) < 2"}
    rules = read_rules(texts, {})
    with open_engine(made.root, rules, made.root.units("samples"), SelectConfig(), tmp_path) as engine:
        rows = engine.rows_sql({"samples": ["source", "caption"], "downloads": ["status"]})
        keep_rows(engine, rules.rules, "m.place, m.source, m.caption, m.status", rows)
        asked = ask_apart(engine, rules.rules, lambda asked: f"m.place, {asked[0].sql} as passes")
        found = _query(engine, asked)
        tables = [row["t"] for row in _query(engine, "select table_name as t from duckdb_tables()")]
        shared = _query(engine, f'select count(*) as n from {KEPT} where "0#" in (from shared_0)')
    nameless = [uid for uid in made.images if made.samples[uid]["caption"] is None]
    assert sorted(tables) == [KEPT, "shared_0"] and shared == [{"n": len(nameless)}]
    assert len({row["place"] for row in found}) == len(made.samples)
    assert sum(not row["passes"] for row in found) >= len(nameless) > 5
