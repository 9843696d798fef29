"""TOML into dataclasses: what is refused, and how it is said."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from curation.recipe.config import SHIPPED, host_port, load_recipe
from curation.settings import apply_overrides, find_config, from_dict, parse_value, read_toml, to_dict


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
        ("[download]\nimage_size = 0\n", "image_size must lie in 1..65500, not 0"),
        ('[download]\nallow_addresses = ["10.0.0.0/33"]\n', "10.0.0.0/33"),
        ("[download]\ntimeout_s = nan\n", "timeout_s must lie in .*, not nan"),
        ("[download]\nfirst_byte_timeout_s = inf\n", "first_byte_timeout_s must lie in .*, not inf"),
        (f"[download]\ntimeout_s = 1{'0' * 400}\n", "timeout_s in download in .* must be of type float"),
        ("[download]\nhost_interval_s = -1\n", "host_interval_s must lie in 0.0.."),
        ("[download]\nmax_redirects = -1\n", "max_redirects must lie in 0..100"),
        ("[download]\nmax_pixels = 9_000_000_000\n", "max_pixels must lie in 1.."),
        ("[download]\nmax_pixels = 50_000\n", "image_size² may be max_pixels at most: 224² is more than 50000"),
        ('[download]\nformats = ["jpeg", "heic"]\n', "formats must name some of jpeg, png, .*, not 'heic'"),
        ("[download]\nformats = []\n", "formats must name some of .* and not be empty"),
        ('[download]\nuser_agent = ""\n', "user_agent must begin with a name .*, not ''"),
        ('[download]\nuser_agent = "360bot"\n', "user_agent must begin with a name .*, not '360bot'"),
        ('[download]\nuser_agent = "bücherwurm"\n', "user_agent must be printable ASCII"),
        ('[download]\ncontact = "a@b.org\\r\\nHost: c"\n', "contact must be printable ASCII"),
        ('[download]\nconnect_to = {"*" = "x"}\n', "connect_to: 'x' is not of the form \"address:port\""),
        ('[download]\nconnect_to = {"*" = "10.0.0.1:70000"}\n', "is not of the form"),
        ('[download]\nconnect_to = {"*" = "localhost:80"}\n', "connect_to: 'localhost' .* is not an IP address"),
        ("[embed]\nbatch_size = 0\n", "batch_size must lie in 1.."),
        ("[dedupe]\nmin_cosine = 1.5\n", "min_cosine must lie in"),
        ("[dedupe]\nmin_cosine = nan\n", "min_cosine must lie in"),
        ("[dedupe]\nmin_entropy = nan\n", "min_entropy must lie in 0.0..8.0, not nan"),
        ("[dedupe]\nnum_centroids = 0\n", "num_centroids must lie in 1.."),
        ("[dedupe]\nseed = -1\n", "seed must lie in 0.."),
        ("[pack]\nnum_bytes_per_shard = 0\n", "num_bytes_per_shard must lie in 1..inf, not 0"),
        ('[sources]\nname = "x"\n', r"written as \[\[sources\]\]"),
        ('[[sources]]\nname = "x"\npaths = []\n', "names no paths"),
        ('[[sources]]\nname="x"\npaths=["a"]\n[[sources]]\nname="x"\npaths=["b"]\n', "two sources are called 'x'"),
        ("not toml", "is not readable TOML"),
    ],
)
def test_bad_recipes(tmp_path: Path, text: str, said: str) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_recipe(recipe)
    assert "\n" not in str(caught.value)


def test_formats_go_by_their_extensions_too(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('[download]\nformats = ["JPG", "png", "jpeg", "tif"]\n')
    assert load_recipe(recipe).download.formats == ("jpeg", "png", "tiff")


def test_targets_of_connect_to() -> None:
    assert host_port("10.0.0.1:80") == ("10.0.0.1", 80)
    assert host_port("[::1]:8080") == ("::1", 8080)


def test_a_number_of_more_digits_than_python_reads() -> None:
    assert parse_value("9" * 5_000) == "9" * 5_000


def test_a_folder_named_like_a_shipped_recipe_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_config("demo", SHIPPED, "recipe").name == "demo.toml"


def test_missing_recipe_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shipped one .*demo"):
        load_recipe(tmp_path / "none.toml")


def test_relative_paths_start_at_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[sources]]\nname = "x"\npaths = ["meta/*.parquet"]\n')
    loaded = load_recipe(recipe, ["download.image_size=96"])
    assert loaded.resolve("meta/a.parquet") == str(tmp_path / "meta/a.parquet")
    assert loaded.resolve("s3://bucket/a") == "s3://bucket/a"
    assert loaded.download.image_size == 96


def test_a_shipped_file_is_found_by_its_name_and_an_unknown_one_names_the_known(tmp_path: Path) -> None:
    shipped, mine = tmp_path / "shipped", tmp_path / "mine.toml"
    shipped.mkdir()
    for file in (shipped / "first.toml", shipped / "second.toml", mine):
        file.touch()
    assert find_config(mine, shipped, "recipe") == mine
    assert find_config("first", shipped, "recipe") == find_config("first.toml", shipped, "recipe")
    assert find_config("first", shipped, "recipe") == shipped / "first.toml"
    with pytest.raises(UserError, match=r"There is no recipe third: .* \(first, second\)"):
        find_config("third", shipped, "recipe")


DEEP = {
    "brackets": "a = " + "[" * 50_000,
    "whole brackets": "a = " + "[" * 40 + "]" * 40,
    "dots": ".".join("a" * 5_000) + " = 1",
    "sections": "[" + ".".join("ab" * 99) + "]",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_file_that_nests_without_end_is_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"r\.toml is not readable TOML: its values are nested too deeply"):
        read_toml(file)


@pytest.mark.parametrize("override", [".".join("a" * 20_000) + "=1", "a=" + "[" * 50_000], ids=["dots", "brackets"])
def test_an_override_that_nests_without_end_is_no_traceback(override: str) -> None:
    with contextlib.suppress(UserError):
        assert apply_overrides({}, [override])["a"].startswith("[[")
