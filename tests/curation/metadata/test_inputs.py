"""Files as a recipe names them: in its order, each with its source's condition, texts known by all of their content."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from curation.metadata.inputs import Input, find_inputs
from curation.recipe.config import Recipe, SourceConfig


def found(folder: Path, *sources: SourceConfig) -> list[Input]:
    return find_inputs(Recipe(folder=str(folder), sources=sources))


def test_files_stand_in_the_order_of_the_recipe_with_the_condition_of_their_source(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.csv"):
        (tmp_path / name).write_text(f"url,caption\nhttp://a.example/{name},x\n")
    first = SourceConfig(name="one", paths=("c.csv",), where="claimed_width > 3")
    items = found(tmp_path, first, SourceConfig(name="two", paths=("[ab].csv",)))
    assert [(item.file, item.source, item.where) for item in items] == [
        ("c.csv", "one", "claimed_width > 3"),
        ("a.csv", "two", ""),
        ("b.csv", "two", ""),
    ]


def test_one_changed_letter_of_a_text_is_another_fingerprint(tmp_path: Path) -> None:
    source, fingerprints = SourceConfig(name="one", paths=("a.csv",)), set()
    for first in "xy":
        (tmp_path / "a.csv").write_text(f"url,caption\nhttp://a.example/1,{first}\n" + "http://a.example/2,z\n" * 9_000)
        fingerprints.add(found(tmp_path, source)[0].fingerprint)
    assert len(fingerprints) == 2


def test_a_recipe_without_sources_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"names no \[\[sources\]\]"):
        find_inputs(Recipe())
