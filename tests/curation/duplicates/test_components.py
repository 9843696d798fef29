import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.duplicates import components
from curation.duplicates.components import RemovalSelector, label_components, select_removing
from tests.support.graphs import SHAPES, Edges, brute_force, random_graph


def labels(edges: Edges) -> dict[int, int]:
    ends = np.array(edges, np.int64).reshape(-1, 2)
    rows, names = label_components(ends[:, 0], ends[:, 1])
    return dict(zip(rows.tolist(), names.tolist(), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str) -> None:
    assert labels(SHAPES[shape]) == brute_force(SHAPES[shape])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), num_rows=st.integers(2, 60), num_edges=st.integers(0, 80))
def test_random_graphs(seed: int, num_rows: int, num_edges: int) -> None:
    edges = random_graph(seed, num_rows, num_edges)
    assert labels(edges) == brute_force(edges)


def decide(edges: Edges, cuts: list[int]) -> list[tuple[int, int]]:
    """(right, left) of the removing edges, the sorted stream being cut at `cuts`."""
    directed = sorted({(min(e), max(e)) for e in edges})
    names = labels(edges)
    stream = np.array(sorted((names[a], a, b) for a, b in directed), np.int64).reshape(-1, 3)
    selector, removed = RemovalSelector(), []
    for piece in np.split(stream, sorted(cuts)):
        mask = selector.select(piece[:, 0], piece[:, 1], piece[:, 2])
        removed += [(int(b), int(a)) for _, a, b in piece[mask]]
    return removed


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_rows=st.integers(2, 40),
    num_edges=st.integers(0, 80),
    cuts=st.lists(st.integers(0, 60), max_size=4),
)
def test_who_stays(seed: int, num_rows: int, num_edges: int, cuts: list[int]) -> None:
    edges = random_graph(seed, num_rows, num_edges)
    removed = decide(edges, cuts)
    gone = dict(removed)
    linked = {frozenset(e) for e in edges}
    assert len(gone) == len(removed), "a row is removed once"
    assert all(kept not in gone and kept < row and frozenset((row, kept)) in linked for row, kept in removed)
    for a, b in edges:
        assert a in gone or b in gone, "two alike rows never both stay"
    assert removed == decide(edges, [])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_rows=st.integers(2, 40),
    num_edges=st.integers(0, 80),
    max_steps=st.sampled_from([0, 1, 64]),
)
def test_edges_at_a_time_decide_as_a_stream_does(seed: int, num_rows: int, num_edges: int, max_steps: int) -> None:
    edges = random_graph(seed, num_rows, num_edges)
    ends = np.array(sorted({(min(e), max(e)) for e in edges if e[0] != e[1]}), np.int64).reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "MAX_STEPS", max_steps)
        chosen = ends[select_removing(ends[:, 0], ends[:, 1])]
    assert [(b, a) for a, b in chosen.tolist()] == sorted(decide(edges, []))


def test_a_chain_is_not_one_group() -> None:
    """0 ~ 1 ~ 2 ~ 3: 2 is like 1, not like 0, and stays; 3 goes for 2."""
    assert decide([(0, 1), (1, 2), (2, 3)], []) == [(1, 0), (3, 2)]
