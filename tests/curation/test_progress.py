"""Progress: a line now and then where there is no terminal, a bar where there is one, nothing with --quiet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation import progress
from curation.export import export
from curation.recipe.select_config import SelectConfig
from curation.selection.decide import select
from curation.selection.rule_set import find_tables, read_rules
from curation.selection.what_if import count_drops
from curation.storage import Root
from tests.support import small_root


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    yield
    progress.be_quiet(False)


def test_without_a_terminal_there_are_whole_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with progress.bar(4, "select, step 2", "task") as bar:
        for _ in range(4):
            bar.update()
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert "\r" not in err and len(lines) >= 3
    assert re.fullmatch(r"select, step 2: 3 of 4 tasks, .*task/s, .* left", lines[-1].replace("4 of 4", "3 of 4"))


def test_what_is_over_in_less_than_a_minute_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar(4, "embed", "unit") as bar:
        bar.update(4)
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    progress.be_quiet()
    with progress.bar(4, "embed", "unit") as bar:
        bar.update(4)
    assert capsys.readouterr().err == "" and progress.is_quiet()


def test_selection_and_export_say_which_of_their_steps_is_at_work(
    root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_root.build(root)
    small_root.duplicates(made, {sorted(made.images)[0]: sorted(made.images)[1]})
    small_root.pack(made, small_root.select(made))
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    rules = read_rules({"new": "duplicate_of is null", "some": "aesthetic >= quantile(aesthetic, 0.1)"}, {})
    capsys.readouterr()
    count_drops(root, rules, find_tables(rules, {}), SelectConfig())
    select(root, rules, find_tables(rules, {}), SelectConfig())
    for form in ("uids", "shards", "parquet"):
        export(root, form, tmp_path / form)
    steps = {line.partition(":")[0] for line in capsys.readouterr().err.splitlines()}
    asked = {f"{name}, {step}" for name in ("select", "what-if") for step in ("duplicates", "rules")}
    asked.add("select, quantile of aesthetic")  # a what-if takes it from the rows that it has read
    assert steps == asked | {"select, written", "export uids", "export shards", "export parquet"}
    progress.be_quiet()
    export(root, "uids", tmp_path / "again")
    assert capsys.readouterr().err == ""
