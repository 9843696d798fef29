"""All entries of a list that a caption names: the same ones that `concept_match` counts, and the longest among them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from curation.errors import UserError

WORDS = ["a", "B", "c!", "hot", "dog", "Hot-Dog"]
ENTRIES = ["a", "b", "B", "c !", "hot dog", "dog", "Hot-Dog", "a hot dog"]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("entries") / "entries.txt"
    path.write_text("\n".join(ENTRIES), encoding="utf-8")
    return str(path)


def score(name: str, captions: list[str | None], entries: str, match: str) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_pydict({"caption": pa.array(captions, pa.string())})
    return filters.build(name, {"entries": entries, "match": match}).apply(batch)


def test_they_stand_one_a_line_in_alphabetical_order(entries: str) -> None:
    found = score("matched_entries", [None, "", "nothing", "A hot dog, b!", "the dog"], entries, "words")
    assert found["matched_entries"].to_pylist() == [None, None, None, "a\na hot dog\nb\ndog\nhot dog", "dog"]


@given(
    captions=st.lists(st.one_of(st.none(), st.lists(st.sampled_from(WORDS)).map(" ".join)), min_size=1),
    match=st.sampled_from(["words", "metaclip"]),
)
def test_they_are_those_of_concept_match(
    entries: str, captions: list[str | None], match: Literal["words", "metaclip"]
) -> None:
    listed = score("matched_entries", captions, entries, match)["matched_entries"].to_pylist()
    other = score("concept_match", captions, entries, match)
    names = [[] if text is None else text.split("\n") for text in listed]
    assert [len(found) for found in names] == [count or 0 for count in other["num_concepts"].to_pylist()]
    longest = [min(found, key=lambda name: (-len(name), name), default=None) for found in names]
    assert longest == other["concept"].to_pylist()
    assert all(found == sorted(set(found)) for found in names)


def test_a_list_that_cannot_be_read_is_refused_before_any_job(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.txt cannot be read"):
        filters.build("matched_entries", {"entries": str(tmp_path / "nowhere.txt")}).check_ready()
