"""What the driver decides alone, beside plain loops; tests/jobs/duplicates/test_graph.py compares it with Spark."""

import itertools

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.duplicates import graph
from curation.duplicates.graph import EDGES, RESULTS, LocalGraph, choose_pairs, take_strongest

Result = tuple[int, int, float, int | None, bool | None, int]
ROWS = st.integers(0, 12)
SIMILARITIES = st.sampled_from([0.7, 0.75, 0.8])


@st.composite
def results(draw: st.DrawFn) -> list[Result]:
    """Edges, pairs in doubt and rows cut short, as searches give them: some pairs by several tiers."""
    found = list[Result]()
    for _ in range(draw(st.integers(0, 40))):
        left, right = sorted((draw(ROWS), draw(ROWS)))
        if left == right:
            found.append((left, left, 1.0, draw(st.sampled_from([None, 5, 6])), None, draw(st.integers(1, 2))))
        else:
            in_doubt = draw(st.sampled_from([None, False, True]))
            found.append((left, right, draw(SIMILARITIES), None, in_doubt, draw(st.integers(1, 2))))
    return found


def table(found: list[Result]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(RESULTS.names, row, strict=True)) for row in found], RESULTS)


def pairs_of(edges: pa.Table) -> list[tuple[int, int]]:
    return list(zip(edges["left"].to_pylist(), edges["right"].to_pylist(), strict=True))


@settings(max_examples=100, deadline=None)
@given(results())
def test_one_edge_a_pair_of_the_earliest_tier_and_the_largest_similarity(found: list[Result]) -> None:
    best = dict[tuple[int, int], tuple[int, float]]()
    for left, right, similarity, _, in_doubt, tier in found:
        if left < right and not in_doubt:
            best[left, right] = min(best.get((left, right), (9, 0.0)), (tier, -similarity))
    wanted = [(*pair, tier, -distance) for pair, (tier, distance) in sorted(best.items())]
    edges = take_strongest(table(found))
    assert edges.schema.names == EDGES.names
    assert list(zip(*(column.to_pylist() for column in edges.columns), strict=True)) == wanted


@settings(max_examples=100, deadline=None)
@given(results(), st.integers(1, 4))
def test_rows_are_removed_in_their_order_whatever_the_steps(found: list[Result], step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "EDGES_PER_STEP", step)
        decided = LocalGraph(table(found))
        decided.decide()
    edges, removed = sorted({(a, b) for a, b, _, _, in_doubt, _ in found if a < b and not in_doubt}), dict[int, int]()
    for a, b in edges:
        if a not in removed and b not in removed:
            removed[b] = a
    assert sorted(pairs_of(decided.removing)) == sorted((a, b) for b, a in removed.items())
    assert set(decided.labels["row"].to_pylist()) == set(itertools.chain(*edges))
    names = dict(zip(*(decided.labels[name].to_pylist() for name in ("row", "component")), strict=True))
    assert all(names[a] == names[b] <= a for a, b in edges)
    cut = [(a, cluster, tier) for a, b, _, cluster, _, tier in found if a == b and a not in removed]
    assert list(zip(*(decided.cut[name].to_pylist() for name in ("row", "cluster", "tier")), strict=True)) == cut


@settings(max_examples=100, deadline=None)
@given(results(), st.integers(1, 3))
def test_pairs_are_those_of_the_rows_that_are_kept_and_of_each_row_the_nearest(found: list[Result], count: int) -> None:
    decided = LocalGraph(table(found))
    decided.decide()
    keeper = {right: left for left, right in pairs_of(decided.removing)}
    near = dict[tuple[int, int], float]()
    for left, right, similarity, _, in_doubt, _ in found:
        a, b = sorted((keeper.get(left, left), keeper.get(right, right)))
        if in_doubt and a < b:
            near[a, b] = max(near.get((a, b), 0.0), similarity)
    wanted = list[tuple[int, int]]()
    for row in range(13):
        wanted += sorted((pair for pair in near if pair[1] == row), key=lambda pair: (-near[pair], pair))[:count]
    doubtful = decided.found.filter(decided.found["in_doubt"])
    assert sorted(pairs_of(choose_pairs(doubtful, decided.removing, count))) == sorted(wanted)
    assert sorted(pairs_of(decided.choose_unseen_pairs(count))) == sorted(wanted)
    assert len(decided.choose_unseen_pairs(count)) == 0, "each is named once"


def test_a_new_edge_changes_which_pairs_are_named() -> None:
    """Row 1 is kept until 0 removes it; what was said of 1 and 2 is said of 0 and 2 from then on."""
    decided = LocalGraph(table([(1, 2, 0.7, None, True, 2), (3, 4, 0.9, None, False, 2)]))
    decided.decide()
    assert pairs_of(decided.choose_unseen_pairs(4)) == [(1, 2)]
    decided.add(table([(0, 1, 0.8, None, False, 1)]))
    decided.decide()
    assert sorted(pairs_of(decided.removing)) == [(0, 1), (3, 4)]
    assert pairs_of(decided.choose_unseen_pairs(4)) == [(0, 2)]
