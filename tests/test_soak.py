"""What counts as growth when a download runs for hours."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.soak import NUM_SHOWN, Sample, find_growth, summarise

FLAT = Sample(
    minutes=0,
    rows=2_100,
    rows_per_s=300,
    memory_mb=300,
    decoders_mb=150,
    open_files=30,
    threads=12,
    children=2,
    temporary=3,
)


def run(**grows: float) -> list[Sample]:
    """A hundred units; of `grows` each unit has so much more than the one before."""
    return [
        replace(FLAT, minutes=n, **{name: getattr(FLAT, name) + n * more for name, more in grows.items()})
        for n in range(100)
    ]


def test_what_stays_is_flat_and_a_start_that_is_larger_or_smaller_is_no_growth() -> None:
    assert find_growth(run()) == []
    assert find_growth([replace(FLAT, memory_mb=100), *run(), replace(FLAT, memory_mb=900)]) == []


def test_each_thing_that_grows_is_named() -> None:
    found = find_growth(run(memory_mb=2, open_files=0.5, threads=0.1, temporary=1))
    assert [text.partition(" ")[0] for text in found] == ["memory_mb", "open_files", "threads", "temporary"]
    assert found[0] == "memory_mb from 374 to 474"


def test_the_table_is_short_and_in_order() -> None:
    rows = summarise(run(memory_mb=1))
    assert len(rows) <= NUM_SHOWN
    assert [row["memory_mb"] for row in rows] == sorted(row["memory_mb"] for row in rows)
    assert len(summarise(run()[:4])) == 4
