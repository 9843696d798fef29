"""Axes of charts."""

import pytest

from curation.report.axes import tick_counts


@pytest.mark.parametrize(
    ("top", "labels"),
    [(0, ["0"]), (1, ["0", "1"]), (2, ["0", "1", "2"]), (13, ["0", "6", "13"]), (89, ["0", "44", "89"])],
)
def test_counts_are_labelled_with_whole_numbers_where_they_stand(top: int, labels: list[str]) -> None:
    ticks = tick_counts(top)
    assert [label for _, label in ticks] == labels
    assert all(place * max(top, 1) == pytest.approx(int(label)) for place, label in ticks)
