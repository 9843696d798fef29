"""Bins: edges, labels, and where a value lies between them."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from curation.report.histograms import NUM_BINS, Bins, Distribution, choose_bins, format_number, merge_equal


def test_few_whole_numbers_have_a_bin_each() -> None:
    bins = choose_bins(0, 3, pa.int32())
    assert bins is not None and bins.labels == ("0 to 1", "1 to 2", "2 to 3", "3 to 4")


def test_many_whole_numbers_have_bins_of_whole_width() -> None:
    bins = choose_bins(0, 799, pa.int64())
    assert bins is not None and bins.num_bins <= NUM_BINS and bins.step == 25


@pytest.mark.parametrize(
    ("threshold", "ends"), [(0.9, (0.0, 1.0)), (1.5, (0.0, 1.5)), (-1.0, (-1.0, 1.0)), (9.0, (0.0, 1.0))]
)
def test_bins_reach_as_far_as_a_threshold_that_is_near(threshold: float, ends: tuple[float, float]) -> None:
    bins = choose_bins(0.0, 1.0, pa.float32(), [threshold])
    assert bins is not None and (bins.edge(0), bins.edge(bins.num_bins)) == pytest.approx(ends)


def test_equal_quantiles_have_no_bins() -> None:
    assert choose_bins(2.0, 2.0, pa.float32()) is None


def test_logarithmic_bins_lie_between_powers_of_two() -> None:
    bins = choose_bins(1_000, 60_000, pa.int64(), is_log=True)
    assert bins is not None and (bins.edge(0), bins.edge(bins.num_bins)) == (512, 65_536)
    assert (
        bins.place(512) == 0
        and bins.place(0) == 0
        and bins.place(65_536) == 1
        and bins.place(5_792.6) == pytest.approx(0.5, abs=1e-3)
    )


@pytest.mark.parametrize("bins", [Bins(0.0, 0.25, 4), Bins(0, 1.0, 4, is_log=True)])
def test_sql_counts_each_value_in_the_bin_whose_edges_are_about_it(bins: Bins) -> None:
    for value in (0.1, 0.3, 0.99, 1.0, 1.5, 3.9, 15.0, 1e9):
        place = int(duckdb.sql(f"select {bins.sql(f'{value!r}::double')}").fetchall()[0][0])
        low, high = bins.edge(place), bins.edge(place + 1)
        assert low <= value < high or place in (0, bins.num_bins - 1)


def test_columns_of_equal_counts_are_one_chart() -> None:
    one, other = Distribution("a", ("x", "y"), (1, 2), (0, 1), 0), Distribution("b", ("x", "y"), (1, 2), (0, 1), 0)
    different = Distribution("c", ("x", "y"), (1, 3), (0, 1), 0)
    assert [chart.column for chart in merge_equal([one, different, other])] == ["a, b", "c"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12345.6, "12,346"), (0.26, "0.26"), (0.00001, "1e-05"), (3e12, "3e+12"), (-2000.0, "-2,000")],
)
def test_numbers_are_written_in_few_digits(value: float, text: str) -> None:
    assert format_number(value) == text
