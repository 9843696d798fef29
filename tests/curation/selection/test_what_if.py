"""What-if: its counts are what select then records, of every shipped recipe, and nothing is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from curation.recipe.config import Recipe, load_recipe
from curation.storage import Root
from jobs import selection
from tests.support.command import Command, contents
from tests.support.scored_root import build_scored_root, shipped_recipes
from tests.support.small_root import SmallRoot


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRoot:
    root = Root(tmp_path_factory.mktemp("what_if") / "root")
    root.create()
    return build_scored_root(root)


def _in_order(text: str) -> Counter[str]:
    """The column "in order" of the first table."""
    lines = text.split("\n\n")[0].splitlines()[2:]
    return Counter({line.split()[0]: int(line.split()[2]) for line in lines if line.split()[2] != "0"})


def compare_with_select(made: SmallRoot, recipe: Recipe) -> Counter[str]:
    """What each rule drops, once the counts are seen to be what a selection records."""
    before = contents(Path(made.root.path))
    text = selection.preview_rules(recipe, recipe, made.root)
    assert contents(Path(made.root.path)) == before
    selection.run_here(recipe, made.root)
    files = (made.root.current("selection") or {})["files"]
    reasons = Counter(reason for rel in files for reason in made.root.read_parquet(rel)["reason"].to_pylist())
    recorded = Counter({reason: n for reason, n in reasons.items() if reason in recipe.rules})
    assert _in_order(text) == recorded
    assert text.startswith(
        f"all sources: {len(made.samples)} rows, {len(made.images)} pictures, {reasons[None]} kept\n"
    )
    return recorded


@pytest.mark.parametrize("name", shipped_recipes())
def test_its_counts_are_what_select_records(made: SmallRoot, name: str) -> None:
    recipe = load_recipe(name)
    # No picture of this root passes these two.
    rules = {name: text for name, text in recipe.rules.items() if name not in ("bytes", "min_side")}
    compare_with_select(made, replace(recipe, rules=rules))


def test_rows_alone_in_a_partition_are_counted_as_those_that_share_one(made: SmallRoot) -> None:
    """Captions are null for some rows and of one row for the others; each rule drops some rows and leaves some."""
    rules = {
        "named": "count(*) over (partition by caption) < 2",
        "later": "row_number() over (partition by pwatermark, source order by aesthetic desc) <= 12",
        "alone": "count(*) over (partition by domain, pwatermark) > 1 or count(*) over (partition by aesthetic) = 1",
        "top": "clip_similarity >= quantile(clip_similarity, 0.2) over (partition by source)",
    }
    dropped = compare_with_select(made, Recipe(rules=rules))
    assert dropped["named"] and 0 < sum(dropped.values()) < len(made.images)


def test_alone_in_order_only_and_examples(made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, rules = Command(capsys), tmp_path / "rules.toml"
    rules.write_text('[rules]\nsafe = "punsafe <= 0.5"\nlikely = "clip_similarity >= 0.3"\n')
    before = contents(Path(made.root.path))
    call = ("select", "--recipe", "laion-400m", "--root", made.root.path, "--what-if", rules)
    assert command(*call, "--examples", 2) == 0, command.err
    assert contents(Path(made.root.path)) == before
    came = [made.samples[uid] for uid in made.images]
    unsafe = [round(row["punsafe"], 6) > 0.5 for row in came]
    unlikely = [round(row["clip_similarity"], 6) < 0.3 for row in came]
    both = sum(a and b for a, b in zip(unsafe, unlikely, strict=True))
    lines = [line.split() for line in command.out.splitlines()]
    assert lines[2] == ["safe", str(sum(unsafe)), str(sum(unsafe)), str(sum(unsafe) - both)]
    assert lines[3] == ["likely", str(sum(unlikely)), str(sum(unlikely) - both), str(sum(unlikely) - both)]
    assert "source coyo: " in command.out and "source laion: " in command.out
    shown = command.out.partition("safe: punsafe <= 0.5\n")[2].splitlines()[:2]
    assert len(shown) == 2 and all(float(line.rpartition("punsafe=")[2]) > 0.5 for line in shown)
    assert "--examples must be" in command.refuses(*call, "--examples", -1)
    assert "did you mean punsafe" in command.refuses(*call, "--set", 'rules.safe="punsaf < 1"')
