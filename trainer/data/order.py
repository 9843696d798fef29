"""The order of samples: a pure function of (seed, pass, position), the same for any number of ranks and workers.

The rows of a group are rotated by a seeded amount and cut into blocks; blocks are permuted, then the runs inside each
window of blocks. So a window's rows lie close together in a few blocks, which read-ahead and a cache use, while the
samples of a batch come from many blocks. Nothing is stored: position p of ten billion costs what position 0 does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trainer.data.permutation import Array, mix, permute

_ROTATION, _BLOCKS, _RUNS = range(3)


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """Sizes of the shuffle, in rows.

    `run_rows` rows stay together in the order (1: none do). Raise it to 16 where every read is a request to an object
    store; packed shards are shuffled already, so neighbours are random samples.
    """

    block_rows: int = 64
    window_rows: int = 8_192
    run_rows: int = 1

    def __post_init__(self) -> None:
        if self.run_rows < 1 or self.block_rows % self.run_rows or self.window_rows % self.block_rows:
            raise ValueError(
                f"run_rows {self.run_rows} must divide block_rows {self.block_rows}, and that window_rows "
                f"{self.window_rows}"
            )

    def rows(self, positions: Array, num_rows: int, passes: Array, seed: int) -> Array:
        """Rows (int64, in `[0, num_rows)`) at `positions` of pass `passes` over one group.

        For each pass it is a bijection of `[0, num_rows)`. Both arrays have one shape.
        """
        key = mix(seed, passes)
        num_blocks = num_rows // self.block_rows
        shuffled = self._within_window(positions, num_rows, key)
        block, inside = np.divmod(shuffled, self.block_rows)
        if num_blocks:
            moved = permute(np.minimum(block, num_blocks - 1), num_blocks, mix(key, _BLOCKS))
            block = np.where(block < num_blocks, moved, block)
        rotation = (mix(key, _ROTATION) % np.uint64(num_rows)).astype(np.int64)
        return (block * self.block_rows + inside + rotation) % num_rows

    def _within_window(self, positions: Array, num_rows: int, key: Array) -> Array:
        """Permute the runs of each window; the last window takes what is left over, a short run at the end stays."""
        last = max(0, num_rows // self.window_rows - 1)
        window = np.minimum(positions // self.window_rows, last)
        start = window * self.window_rows
        size = np.where(window == last, num_rows - start, self.window_rows)
        num_runs = size // self.run_rows
        run, inside = np.divmod(positions - start, self.run_rows)
        whole = run < num_runs
        safe_runs = np.maximum(num_runs, 1)
        moved = permute(np.where(whole, run, 0), safe_runs, mix(key, _RUNS, window))
        shuffled: Array = start + np.where(whole, moved, run) * self.run_rows + inside
        return shuffled


@dataclass(frozen=True)
class Stream:
    """The endless stream of rows over groups that are mixed by weight; one group when nothing is mixed.

    `group_starts` int64 `[num_groups + 1]`: group k holds rows `[group_starts[k], group_starts[k + 1])`.
    `pattern` uint16: the group of every slot of one period (trainer/data/mixing.py).
    """

    group_starts: Array
    pattern: Array
    seed: int
    shuffle: Shuffle | None

    def rows(self, positions: Array) -> tuple[Array, Array]:
        """(row, pass over its group) at each position of the stream, both int64."""
        period, slot = np.divmod(positions.astype(np.int64), len(self.pattern))
        groups = self.pattern[slot]
        rank, per_period = self._ranks
        drawn = period * per_period[groups] + rank[slot]
        rows, passes = np.empty_like(drawn), np.empty_like(drawn)
        for group in np.unique(groups):
            chosen = groups == group
            start, stop = self.group_starts[group], self.group_starts[group + 1]
            passes[chosen], inside = np.divmod(drawn[chosen], stop - start)
            if self.shuffle is not None:
                inside = self.shuffle.rows(inside, int(stop - start), passes[chosen], int(mix(self.seed, int(group))))
            rows[chosen] = start + inside
        return rows, passes

    @cached_property
    def _ranks(self) -> tuple[Array, Array]:
        """How many slots before each one have its group, and the slots of each group in one period."""
        counts = np.bincount(self.pattern, minlength=len(self.group_starts) - 1)
        by_group = np.argsort(self.pattern, kind="stable")
        firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        rank = np.empty(len(self.pattern), np.int64)
        rank[by_group] = np.arange(len(self.pattern)) - firsts[self.pattern[by_group]]
        return rank, counts
