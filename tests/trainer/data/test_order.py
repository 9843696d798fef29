"""The order of samples: a permutation of every pass, and shares that hold at every moment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from trainer.data import mixing
from trainer.data.order import Shuffle, Stream
from trainer.data.permutation import permute, uniforms

SEEDS = st.integers(0, 2**63 - 1)


@st.composite
def shuffles(draw: st.DrawFn) -> Shuffle:
    run = draw(st.integers(1, 5))
    block = run * draw(st.integers(1, 5))
    return Shuffle(run_rows=run, block_rows=block, window_rows=block * draw(st.integers(1, 5)))


@given(size=st.integers(1, 3_000), key=SEEDS)
def test_permute_is_a_permutation(size: int, key: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


def test_permutations_differ_and_move_almost_everything() -> None:
    one, other = (permute(np.arange(10_000), 10_000, key) for key in (1, 2))
    assert (one == other).mean() < 0.01 and (one == np.arange(10_000)).mean() < 0.01
    assert abs(np.corrcoef(one, np.arange(10_000))[0, 1]) < 0.05


def test_large_domains_need_no_table() -> None:
    positions = np.array([0, 1, 9_999_999_999])
    images = permute(positions, 10_000_000_000, 7)
    assert len(set(images.tolist())) == 3 and (images >= 0).all() and (images < 10_000_000_000).all()


@given(shuffle=shuffles(), num_rows=st.integers(1, 700), turn=st.integers(0, 3), seed=SEEDS)
def test_each_pass_of_a_shuffle_holds_every_row_once(shuffle: Shuffle, num_rows: int, turn: int, seed: int) -> None:
    rows = shuffle.rows(np.arange(num_rows), num_rows, np.full(num_rows, turn), seed)
    assert np.array_equal(np.sort(rows), np.arange(num_rows))


def test_passes_have_different_orders() -> None:
    shuffle = Shuffle(block_rows=4, window_rows=16)
    first, second = (shuffle.rows(np.arange(500), 500, np.full(500, turn), 3) for turn in (0, 1))
    assert (first == second).mean() < 0.05


def test_a_window_reads_few_blocks_and_a_batch_many() -> None:
    """What read-ahead and the cache live on, and what makes a batch random."""
    shuffle = Shuffle(block_rows=64, window_rows=1_024)
    rows = shuffle.rows(np.arange(1_024), 64_000, np.zeros(1_024, np.int64), 5)
    # The rotation may cut one block in two.
    assert len(np.unique(rows // 64)) <= 2 * 1_024 // 64
    assert len(np.unique(rows[:64] // 64)) > 12


@given(weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=12))
def test_shares_hold_after_every_sample(weights: list[float]) -> None:
    slots = mixing.make_pattern(weights)
    shares = np.bincount(slots, minlength=len(weights)) / mixing.PERIOD
    exact = np.array(weights) / sum(weights)
    assert len(slots) == mixing.PERIOD
    assert np.abs(shares - exact).max() <= len(weights) / mixing.PERIOD
    given = np.cumsum(np.eye(len(weights))[slots], axis=0)
    wanted = np.arange(1, mixing.PERIOD + 1)[:, None] * shares
    assert np.abs(given - wanted).max() < len(weights)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.05, 10), min_size=4, max_size=4),
    start=st.integers(0, 50_000),
    seed=SEEDS,
    shuffle=st.none() | shuffles(),
)
def test_the_stream_is_a_function_of_the_position(
    sizes: list[int], weights: list[float], start: int, seed: int, shuffle: Shuffle | None
) -> None:
    """Asked in any pieces it gives the same rows, and a group's pass n + 1 begins when pass n is through."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    stream = Stream(starts, mixing.make_pattern(weights[: len(sizes)]), seed, shuffle)
    positions = np.arange(start, start + 300)
    rows, passes = stream.rows(positions)
    pieces = [stream.rows(part) for part in np.array_split(positions[::-1], 7)]
    assert np.array_equal(np.concatenate([r for r, _ in pieces])[::-1], rows)
    for group, size in enumerate(sizes):
        mine = (rows >= starts[group]) & (rows < starts[group + 1])
        assert (np.diff(passes[mine]) >= 0).all()
        seen = {}
        for row, turn in zip(rows[mine].tolist(), passes[mine].tolist(), strict=True):
            seen.setdefault(turn, []).append(row)
        assert all(len(set(found)) == len(found) for found in seen.values())
        whole = sorted(seen)[1:-1]
        assert all(len(seen[turn]) == size for turn in whole)


def test_uniforms_are_uniform() -> None:
    drawn = uniforms(3, 7, np.arange(20_000))
    assert drawn.shape == (20_000, 3) and (drawn >= 0).all() and (drawn < 1).all()
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({"laion": -1.0}, "weights must be positive"),
        ({"laion": float("nan")}, "weights must be positive"),
        ({"web": 1.0}, r"names 'web', which has no selected row; sources with rows: laion \(5\)"),
    ],
)
def test_a_bad_mix_is_one_sentence(mix: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        mixing.check_mix(mix, {"laion": 5, "coyo": 0})


def test_sizes_of_a_shuffle_must_divide() -> None:
    with pytest.raises(ValueError, match="must divide"):
        Shuffle(block_rows=64, window_rows=100)
