"""Paths of the recipe: braces count and list, hidden names are files, folders are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from curation.paths import expand_braces, find_files, find_folders, find_listed


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a/{00008..00011}.parquet", ["a/00008.parquet", "a/00009.parquet", "a/00010.parquet", "a/00011.parquet"]),
        ("{b,a}/{1..2}", ["b/1", "b/2", "a/1", "a/2"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{x}/{}/{1..}", ["{x}/{}/{1..}"]),
        ("plain", ["plain"]),
    ],
)
def test_braces_count_and_list(pattern: str, paths: list[str]) -> None:
    assert expand_braces(pattern) == paths


@pytest.mark.parametrize("pattern", ["{0..1000000000000}", "{0..9999}{0..9999}"])
def test_too_many_paths_are_refused(pattern: str) -> None:
    with pytest.raises(UserError, match="stands for more than"):
        expand_braces(pattern)


def names(folder: Path, pattern: str) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in find_files(f"{folder}/{pattern}", "Source 'm'")]


def test_hidden_names_are_found_and_marks_of_spark_are_not(tmp_path: Path) -> None:
    for name in ("b.parquet", "_a.parquet", ".c.parquet", "_SUCCESS", "_metadata", ".b.parquet.crc", "x/d.parquet"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert names(tmp_path, "*.parquet") == [".c.parquet", "_a.parquet", "b.parquet"]
    assert names(tmp_path, "*") == [".c.parquet", "_a.parquet", "b.parquet"]
    assert names(tmp_path, "**/*.parquet") == [".c.parquet", "_a.parquet", "b.parquet", "x/d.parquet"]
    assert names(tmp_path, "{b,_a}.parquet") == ["b.parquet", "_a.parquet"]
    assert names(tmp_path, "_SUCCESS") == ["_SUCCESS"]


def test_a_name_with_the_characters_of_patterns_is_itself(tmp_path: Path) -> None:
    for name in ("a[1].parquet", "a{1..2}.parquet", "2024-05-01T12:00:00.parquet", "a::b.parquet"):
        (tmp_path / name).touch()
        assert names(tmp_path, name) == [name]


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "spark.parquet").mkdir()
    for pattern in ("spark.parquet", "*.parquet"):
        with pytest.raises(UserError, match=r"Source 'm': .*/spark.parquet is a folder; name the files in it"):
            names(tmp_path, pattern)
    with pytest.raises(UserError, match="nothing matches .*part-00001 of .*part-{00001..00002}"):
        names(tmp_path, "part-{00001..00002}")


def test_a_plain_path_is_left_to_its_reader_and_a_pattern_is_looked_up(tmp_path: Path) -> None:
    for name in ("1.txt", "2.txt"):
        (tmp_path / name).touch()
    assert find_listed(f"{tmp_path}/none.txt", "s") == [f"{tmp_path}/none.txt"]
    assert find_listed("http://h.example/list?a=[1]", "s") == ["http://h.example/list?a=[1]"]
    for pattern in ("{1..2}.txt", "*.txt", "[12].txt"):
        assert find_listed(f"{tmp_path}/{pattern}", "s") == [f"{tmp_path}/1.txt", f"{tmp_path}/2.txt"]
    with pytest.raises(UserError, match="^s: nothing matches .*/{3..4}.txt|^s: nothing matches .*3.txt of"):
        find_listed(f"{tmp_path}/{{3..4}}.txt", "s")
    with pytest.raises(UserError, match="^s: unheard://h/[*] cannot be looked up"):
        find_listed("unheard://h/*", "s")


def test_patterns_name_folders_where_folders_are_wanted(tmp_path: Path) -> None:
    for name in ("a1", "a2", "b", "odd[1]"):
        (tmp_path / name).mkdir()
    (tmp_path / "a3").touch()
    found = {
        "a*": ["a1", "a2"], "{a1,b}": ["a1", "b"], "a{1..2}": ["a1", "a2"], "*": ["a1", "a2", "b", "odd[1]"],
        "odd[1]": ["odd[1]"], "none": ["none"],
    }  # fmt: skip
    for pattern, names in found.items():
        assert find_folders(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{name}" for name in names]
    for pattern in ("c*", "a{1..3}"):
        with pytest.raises(UserError, match="Nothing matches .* that is a folder: check the path"):
            find_folders(f"{tmp_path}/{pattern}")
