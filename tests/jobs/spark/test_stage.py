"""Stages one after the other: Spark starts before the first one that needs it, and not at all for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.recipe.config import Recipe
from curation.storage import Root
from jobs.spark import session
from jobs.spark.stage import Stage, run_loaded


def test_spark_starts_for_the_first_stage_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = list[str]()

    def stage(name: str, here: bool) -> Stage:
        def run(_: Any, __: Recipe, ___: Root) -> None:
            said.append(f"{name} on Spark")

        def run_here(_: Recipe, __: Root) -> None:
            said.append(f"{name} here")

        return Stage(name, lambda *_: None, run, run_here if here else None)

    monkeypatch.setattr(session, "session", lambda *_: said.append("Spark starts"))
    stages = [stage("a", True), stage("b", False), stage("c", False), stage("d", True)]
    run_loaded(stages, Recipe(), Root(tmp_path / "root"))
    assert said == ["a here", "Spark starts", "b on Spark", "c on Spark", "d here"]
    assert [line.split()[:2] for line in capsys.readouterr().err.splitlines()] == [[x, "done"] for x in "abcd"]


def test_a_stage_says_by_the_recipe_whether_it_needs_spark() -> None:
    stage = Stage("a", lambda *_: None, lambda *_: None, lambda *_: None, lambda recipe: not recipe.rules)
    assert not stage.runs_on_spark(Recipe())
    assert stage.runs_on_spark(Recipe(rules={"wide": "width > 3"}))
    assert Stage("b", lambda *_: None, lambda *_: None).runs_on_spark(Recipe())
