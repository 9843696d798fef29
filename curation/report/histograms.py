"""The distribution of one column: equal bins of its values, and where rules draw a line through them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa

NUM_BINS = 32


@dataclass(frozen=True)
class Cut:
    """A threshold on a column: `rule` wants the column `operator` `value`, which `num_passed` of its values do."""

    rule: str
    operator: str
    value: float
    num_passed: int


@dataclass(frozen=True)
class Bins:
    """Equal bins from `low` on, each `step` wide; of the logarithm of base 2 where `is_log`.

    What lies outside is counted in the bins at the ends.
    """

    low: float
    step: float
    num_bins: int
    is_log: bool = False

    def sql(self, value: str) -> str:
        """SQL for the bin of `value` (SQL), which is a known number, and positive where the bins are logarithmic."""
        scaled = f"log2({value})" if self.is_log else value
        place = f"floor(({scaled} - {self.low!r}) / {self.step!r})"
        return f"least(greatest({place}, 0), {self.num_bins - 1})::int"

    def edge(self, number: int) -> float:
        """The least value of bin `number`."""
        value = self.low + number * self.step
        return 2.0**value if self.is_log else value

    def place(self, value: float) -> float:
        """Where `value` lies, 0 being the lower end of all bins and 1 the upper one."""
        scaled = value
        if self.is_log:
            scaled = math.log2(value) if value > 0 else -math.inf
        return min(max((scaled - self.low) / (self.step * self.num_bins), 0.0), 1.0)

    @property
    def labels(self) -> tuple[str, ...]:
        """The range of each bin."""
        edges = [format_number(self.edge(number)) for number in range(self.num_bins + 1)]
        return tuple(f"{low} to {high}" for low, high in zip(edges, edges[1:], strict=False))


@dataclass(frozen=True)
class Distribution:
    """Counts of one column: `labels` of the bins or categories, pictures in each, kept ones in each, unknown ones.

    `column` names several columns where they have the same counts, as a filter's copy of a score of the metadata has.
    `bins` is None for categories. `cuts` are the thresholds of rules.
    """

    column: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    kept: tuple[int, ...]
    num_unknown: int
    bins: Bins | None = None
    cuts: tuple[Cut, ...] = ()

    @property
    def num_known(self) -> int:
        """Pictures of which the column is known and a finite number; of categories, those that are listed."""
        return sum(self.counts)


def merge_equal(charts: Iterable[Distribution]) -> list[Distribution]:
    """`charts`, those with the same counts as one: a filter's copy of a score of the metadata has the same."""
    by_counts: dict[Distribution, list[Distribution]] = {}
    for chart in charts:
        by_counts.setdefault(replace(chart, column="", cuts=()), []).append(chart)
    return [
        replace(
            one,
            column=", ".join(chart.column for chart in same),
            cuts=tuple(cut for chart in same for cut in chart.cuts),
        )
        for one, same in by_counts.items()
    ]


def choose_bins(
    low: float, high: float, dtype: pa.DataType, thresholds: Iterable[float] = (), *, is_log: bool = False
) -> Bins | None:
    """Bins between two quantiles of a column of type `dtype`; None when they are equal.

    They reach as far as those of `thresholds` that are no further away than the quantiles are from each other.
    """
    if low == high:
        return None
    near = [value for value in thresholds if 2 * low - high <= value <= 2 * high - low]
    low, high = min([low, *near]), max([high, *near])
    if is_log:
        low, high = math.floor(math.log2(max(low, 1))), math.ceil(math.log2(max(high, 2)))
        return Bins(low, max(high - low, 1) / NUM_BINS, NUM_BINS, is_log=True)
    if pa.types.is_integer(dtype):
        low, span = math.floor(low), math.ceil(high) - math.floor(low) + 1
        step = math.ceil(span / NUM_BINS)
        return Bins(low, step, math.ceil(span / step))
    return Bins(low, (high - low) / NUM_BINS, NUM_BINS)


def format_number(value: float) -> str:
    """`value` with four digits, thousands apart, without an exponent below a million millions."""
    if value and (abs(value) < 1e-4 or abs(value) >= 1e12):
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
