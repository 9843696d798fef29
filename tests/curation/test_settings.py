"""TOML into dataclasses: what is refused, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.config import find, load
from curation.errors import UserError
from curation.settings import apply_overrides, from_dict, parse_value, to_dict


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    rate: float = 1.0
    inner: Inner = field(default_factory=Inner)
    paths: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate must not be negative, not {self.rate}")


def test_builds_nested() -> None:
    built = from_dict(Outer, {"name": "x", "rate": 2, "inner": {"mode": "b"}, "paths": ["p"], "limit": 4}, "f.toml")
    assert built == Outer(name="x", rate=2.0, inner=Inner(mode="b"), paths=("p",), limit=4)
    assert from_dict(Outer, to_dict(built), "again") == built


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "x", "ratio": 1}, r"Unknown key 'ratio' in f.toml .*did you mean rate.*allowed: inner, limit, name"),
        ({"name": "x", "inner": {"sise": 1}}, r"Unknown key 'sise' in inner in f.toml"),
        ({}, "f.toml lacks name"),
        ({"name": 3}, "name in f.toml must be of type str, not 3"),
        ({"name": "x", "limit": True}, "limit in f.toml must be of type int, not True"),
        ({"name": "x", "inner": {"mode": "c"}}, "mode in inner in f.toml is 'c'; allowed: 'a', 'b'"),
        ({"name": "x", "paths": "p"}, "paths in f.toml must be a list"),
        ({"name": "x", "inner": 3}, "inner in f.toml must be a section"),
        ({"name": "x", "rate": -1.0}, "f.toml: rate must not be negative"),
    ],
)
def test_refusals_are_one_sentence(data: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        from_dict(Outer, data, "f.toml")
    assert "\n" not in str(caught.value)


@given(st.one_of(st.integers(-(2**60), 2**60), st.booleans(), st.lists(st.integers(0, 9)), st.floats(-1e9, 1e9)))
def test_values_parse_as_toml(value: Any) -> None:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    assert parse_value(text) == value


def test_overrides() -> None:
    data = {"a": {"b": 1}, "list": [{"c": 1}, {"c": 2}]}
    changed = apply_overrides(data, ["a.b=2", "a.new.deep=[1, 2]", "list.1.c=x > 3", "top=text with = sign"])
    assert changed == {
        "a": {"b": 2, "new": {"deep": [1, 2]}},
        "list": [{"c": 1}, {"c": "x > 3"}],
        "top": "text with = sign",
    }
    assert data == {"a": {"b": 1}, "list": [{"c": 1}, {"c": 2}]}


@pytest.mark.parametrize("override", ["no-equals", "=3", "list.7.c=1", "a.b.c=1"])
def test_bad_overrides(override: str) -> None:
    with pytest.raises(UserError):
        apply_overrides({"a": {"b": 1}, "list": [{}]}, [override])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[downlod]\n", "Unknown key 'downlod'.*did you mean download"),
        ("[download]\nimage_siz = 3\n", "Unknown key 'image_siz' in download"),
        ("[download]\nimage_size = 0\n", "image_size must be at least 1"),
        ('[download]\nallow_addresses = ["10.0.0.0/33"]\n', "10.0.0.0/33"),
        ("[dedupe]\nmin_cosine = 1.5\n", "min_cosine must lie in"),
        ('[sources]\nname = "x"\n', r"written as \[\[sources\]\]"),
        ('[[sources]]\nname = "x"\npaths = []\n', "names no paths"),
        ('[[sources]]\nname="x"\npaths=["a"]\n[[sources]]\nname="x"\npaths=["b"]\n', "two sources are called 'x'"),
        ("not toml", "is not readable TOML"),
    ],
)
def test_bad_recipes(tmp_path: Path, text: str, said: str) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(text)
    with pytest.raises(UserError, match=said):
        load(recipe)


def test_a_folder_named_like_a_shipped_recipe_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find("demo").name == "demo.toml"


def test_missing_recipe_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shipped recipe .*demo"):
        load(tmp_path / "none.toml")


def test_relative_paths_start_at_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[sources]]\nname = "x"\npaths = ["meta/*.parquet"]\n')
    loaded = load(recipe, ["download.image_size=96"])
    assert loaded.resolve("meta/a.parquet") == str(tmp_path / "meta/a.parquet")
    assert loaded.resolve("s3://bucket/a") == "s3://bucket/a"
    assert loaded.download.image_size == 96
