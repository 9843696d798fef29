"""Repeats and counts over all rows, as a loop finds them, in batches that end anywhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from curation.ingest.parts import PLACE_BITS
from curation.ingest.repeats import count_domains, find_repeats, sum_domains
from curation.recipe.select_config import SelectConfig
from curation.selection import streams as streams_of
from curation.selection.streams import Streams, open_connection


@pytest.fixture
def streams(tmp_path: Path) -> Iterator[Streams]:
    with open_connection(SelectConfig(memory_gb=0.1, threads=2), tmp_path) as connection:
        yield Streams(connection)


def make_uid(number: int) -> str:
    return f"{number * 2_654_435_761 % 2**128:032x}"


@pytest.mark.parametrize("batch_rows", [1, 7, 65_536])
def test_repeats_are_all_but_the_first_and_those_that_an_earlier_plan_has(
    streams: Streams, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr(streams_of, "BATCH_ROWS", batch_rows)
    rng = random.Random(6)
    parts = [[rng.randrange(400) for _ in range(size)] for size in (50, 0, 300, 1, 0, 0, 90, 0)]
    earlier = set(range(0, 400, 9))
    tables = [
        pa.table({"uid": [make_uid(n) for n in part], "place": [(k << PLACE_BITS) + i for i in range(len(part))]})
        for k, part in enumerate(parts)
        if part
    ]
    known = [pa.table({"uid": [make_uid(n) for n in sorted(earlier)]}), pa.table({"uid": pa.array([], pa.string())})]
    seen, expected = set(earlier), list[list[int]]()
    for part in parts:
        expected.append([])
        for place, number in enumerate(part):
            if number in seen:
                expected[-1].append(place)
            seen.add(number)
    found = [numbers.tolist() for numbers in find_repeats(streams, lambda: tables, known, 441, len(parts))]
    assert found == expected and any(found)


def test_no_row_and_no_earlier_plan(streams: Streams) -> None:
    assert [numbers.tolist() for numbers in find_repeats(streams, list, [], 0, 2)] == [[], []]
    sum_domains(streams, [])
    counts = count_domains(streams, 3)
    assert (counts.num_rows, counts.placed, counts.largest) == (0, {}, [])


def test_domains_are_added_up_over_parts(streams: Streams) -> None:
    rng = random.Random(7)
    parts = [Counter(f"d{rng.randrange(40)}.example" for _ in range(200)) for _ in range(5)]
    sum_domains(streams, [pa.table({"domain": list(part), "n": list(part.values())}) for part in parts])
    whole = sum(parts, Counter[str]())
    counts = count_domains(streams, 25)
    assert counts.num_rows == 1_000
    assert counts.placed == {domain: n for domain, n in whole.items() if n >= 25} != {}
    assert counts.largest == [domain for domain, _ in sorted(whole.items(), key=lambda item: (-item[1], item[0]))][:20]
