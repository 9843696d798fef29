"""Joined reads: every extent lies in its span, and what is read between them stays within both bounds."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.data.spans import MAX_SPAN_BYTES, ReadCost, plan_reads

EXTENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=40)
"""(shard, place, length), in units of 512 bytes as in a tar, so that many gaps are equally large."""


def _columns(extents: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shard, place, length = np.array(extents, np.int64).T
    return shard, 512 * place, 512 * (place + length)


@given(EXTENTS, st.integers(0, 10), st.floats(1.0, 3.0))
def test_every_extent_lies_whole_in_its_span(
    extents: list[tuple[int, int, int]], max_gap: int, max_ratio: float
) -> None:
    shard, start, stop = _columns(extents)
    plan = plan_reads(shard, start, stop, 512 * max_gap, max_ratio)
    assert (plan.shard[plan.span] == shard).all()
    assert (plan.start[plan.span] + plan.inside == start).all() and (plan.stop[plan.span] >= stop).all()


@example([(0, 2 * k, 1) for k in range(20)], 10, 1.5)
@given(EXTENTS, st.integers(0, 10), st.floats(1.0, 3.0))
def test_the_bytes_read_stay_below_the_ratio_also_where_gaps_are_equally_large(
    extents: list[tuple[int, int, int]], max_gap: int, max_ratio: float
) -> None:
    shard, start, stop = _columns(extents)
    plan = plan_reads(shard, start, stop, 512 * max_gap, max_ratio)
    assert plan.num_bytes <= max_ratio * int((stop - start).sum())


def test_the_smallest_gaps_are_joined_first_and_none_above_the_largest_allowed() -> None:
    start = np.array([0, 110, 300, 405])
    stop = start + 100
    gaps_of_10_90_5 = (np.zeros(4, np.int64), start, stop)
    assert len(plan_reads(*gaps_of_10_90_5, max_gap=100, max_ratio=2.0).shard) == 1
    assert plan_reads(*gaps_of_10_90_5, max_gap=50, max_ratio=2.0).start.tolist() == [0, 300]
    assert plan_reads(*gaps_of_10_90_5, max_gap=100, max_ratio=1.02).start.tolist() == [0, 110, 300]
    assert plan_reads(*gaps_of_10_90_5, max_gap=100, max_ratio=1.0).start.tolist() == [0, 110, 300, 405]


def test_a_long_span_is_split() -> None:
    start = np.arange(0, 3 * MAX_SPAN_BYTES, 1 << 20)
    plan = plan_reads(np.zeros(len(start), np.int64), start, start + (1 << 20), 0, 1.0)
    assert len(plan.shard) in (3, 4) and (plan.stop - plan.start).max() <= MAX_SPAN_BYTES


def test_the_cost_of_a_read_is_learned_from_reads() -> None:
    cost = ReadCost(per_read_s=1e-5, bytes_per_s=1e9)
    for _ in range(200):
        cost.observe([1_000, 1_000_000], [0.01 + 1_000 / 1e8, 0.01 + 1_000_000 / 1e8])
    assert 0.8e6 < cost.max_gap_bytes < 1.2e6, "ten milliseconds at 100 MB/s"
