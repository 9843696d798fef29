"""A metadata file is known by its place and its content: nothing enters a root twice, and no setting is ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.metadata.inputs import find_inputs
from curation.metadata.known import NewInputs, choose_new_inputs, describe_input
from curation.recipe.config import Recipe, SourceConfig


def write(path: Path, first: int, count: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"url": f"http://a.example/{i:04}.jpg", "caption": f"{i:04}"} for i in range(first, first + count)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def choose(folder: Path, planned: list[dict[str, Any]], *sources: SourceConfig) -> NewInputs:
    return choose_new_inputs(find_inputs(Recipe(folder=str(folder), sources=sources)), planned, "ROOT")


def planned(folder: Path, *sources: SourceConfig) -> list[dict[str, Any]]:
    """What a plan records of an ingest of `sources`."""
    return [describe_input(item) for item in choose(folder, [], *sources).fresh]


def names(chosen: NewInputs) -> tuple[list[str], list[str]]:
    return [item.file for item in chosen.fresh], [item.file for item, _ in chosen.repeated]


def source(*paths: str, name: str = "one", **settings: Any) -> SourceConfig:
    return SourceConfig(name=name, paths=paths, **settings)


def test_a_file_that_two_patterns_a_dot_or_a_link_name_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "meta" / "a.jsonl", 0)
    (tmp_path / "meta" / "link.jsonl").symlink_to("a.jsonl")
    (tmp_path / "linked").symlink_to("meta")
    chosen = choose(tmp_path, [], source("meta/*.jsonl", "meta/a*", "./meta/../meta/a.jsonl", "linked/a.jsonl"))
    assert names(chosen) == (["a.jsonl"], [])


def test_the_same_content_under_another_name_folder_or_source_is_known(tmp_path: Path) -> None:
    write(tmp_path / "meta" / "a.jsonl", 0)
    write(tmp_path / "copy" / "b.jsonl", 0)
    write(tmp_path / "copy" / "new.jsonl", 50)
    first = planned(tmp_path, source("meta/*.jsonl"))
    assert names(choose(tmp_path, first, source("copy/*.jsonl"))) == (["new.jsonl"], ["b.jsonl"])
    renamed = choose(tmp_path, first, source("meta/*.jsonl", name="two"))
    assert names(renamed) == ([], ["a.jsonl"])
    assert "a.jsonl of source 'two' holds what" in renamed.describe_repeated()
    both = choose(tmp_path, [], source("meta/*.jsonl"), source("copy/b.jsonl", name="two"))
    assert names(both) == (["a.jsonl"], ["b.jsonl"])


def test_a_moved_folder_is_known_though_its_files_are_gone(tmp_path: Path) -> None:
    write(tmp_path / "meta" / "a.jsonl", 0)
    first = planned(tmp_path, source("meta/*.jsonl"))
    (tmp_path / "meta").rename(tmp_path / "moved")
    assert names(choose(tmp_path, first, source("moved/*.jsonl"))) == ([], ["a.jsonl"])
    for record in first:
        del record["sha256"], record["where"]  # as earlier versions recorded it
    assert names(choose(tmp_path, first, source("moved/*.jsonl"))) == ([], ["a.jsonl"])


def test_files_of_equal_size_and_end_are_two_files(tmp_path: Path) -> None:
    for name, first in (("a", "0000"), ("b", "9999")):
        urls = [f"http://a.example/{first}", *(f"http://a.example/{i:04}" for i in range(1, 5_000))]
        table = pa.table({"url": urls, "caption": urls})
        pq.write_table(
            table, tmp_path / f"{name}.parquet", compression="NONE", use_dictionary=False, write_statistics=False
        )
    chosen = choose(tmp_path, [], source("*.parquet"))
    assert names(chosen) == (["a.parquet", "b.parquet"], [])
    assert len({item.fingerprint for item in chosen.fresh}) == 1
    first = planned(tmp_path, source("a.parquet"))
    assert names(choose(tmp_path, first, source("b.parquet"))) == (["b.parquet"], [])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"where": "claimed_width > 10"}, "with where 'claimed_width > 99' and source 'one' has 'claimed_width > 10'"),
        ({}, "with where 'claimed_width > 99' and source 'one' has left out now"),
        ({"where": "claimed_width > 99", "columns": {"caption": "url"}}, "with columns left out"),
        ({"where": "claimed_width > 99", "format": "pairs"}, "with format 'relaion'"),
        ({"where": " claimed_width  > 99\n"}, None),
    ],
)
def test_a_setting_that_would_choose_other_rows_of_a_known_file_is_refused(
    tmp_path: Path, settings: dict[str, Any], said: str | None
) -> None:
    write(tmp_path / "a.jsonl", 0)
    first = planned(tmp_path, source("a.jsonl", where="claimed_width > 99"))
    if said is None:
        assert names(choose(tmp_path, first, source("a.jsonl", **settings))) == ([], [])
        return
    with pytest.raises(UserError, match=said):
        choose(tmp_path, first, source("a.jsonl", **settings))


def test_a_root_of_an_earlier_version_says_nothing_of_its_conditions(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 0)
    first = [{k: v for k, v in record.items() if k != "where"} for record in planned(tmp_path, source("a.jsonl"))]
    assert names(choose(tmp_path, first, source("a.jsonl", where="claimed_width > 1"))) == ([], [])


def test_two_sources_that_read_one_content_differently_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 0)
    with pytest.raises(UserError, match=r"of source 'two' holds what .* of source 'one' holds.* different where"):
        choose(tmp_path, [], source("a.jsonl"), source("a.jsonl", name="two", where="claimed_width > 3"))


def test_a_file_that_was_written_anew_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 0)
    first = planned(tmp_path, source("a.jsonl"))
    write(tmp_path / "a.jsonl", 7)
    with pytest.raises(UserError, match="a.jsonl has changed since it was ingested into ROOT"):
        choose(tmp_path, first, source("a.jsonl"))
