"""Curves: their points in the frame, tooltips at each, means where there are too many."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from curation.report.axes import HEIGHT, LEFT, TOP, WIDTH
from curation.report.line_charts import MAX_POINTS, Curve, draw_curves, thin


def _draw(*curves: Curve, **options: bool) -> ElementTree.Element:
    return ElementTree.fromstring(draw_curves("a <chart>", curves, "x", "y", **options))


def test_a_curve_goes_from_corner_to_corner() -> None:
    svg = _draw(Curve(name="a", points=[(0, 0), (5, 1), (10, 4)]))
    (line,) = [each.get("d", "") for each in svg.iter() if "curve" in each.get("class", "")]
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", line) if point]
    assert points[0] == (LEFT, TOP + HEIGHT) and points[-1] == (LEFT + WIDTH, TOP)
    assert points[1] == pytest.approx((LEFT + WIDTH / 2, TOP + HEIGHT * 3 / 4))
    assert "a: 1 at 5" in [each.text for each in svg.iter() if each.tag.endswith("title")]


def test_both_axes_are_logarithms_and_what_has_none_is_left_out() -> None:
    svg = _draw(Curve(name="a", points=[(1, 1000), (10, 100), (100, 10), (1000, 0)]), is_log=True)
    texts = [each.text for each in svg.iter() if each.tag.endswith("text")]
    assert {"1", "10", "100", "1k"} <= set(texts)


def test_one_point_is_a_dot_and_none_is_no_chart() -> None:
    assert any(each.tag.endswith("circle") for each in _draw(Curve(name="a", points=[(3, 3)])).iter())
    assert draw_curves("n", [Curve(name="a", points=[(1, float("nan"))])], "x", "y") == ""


def test_many_points_are_means_of_neighbours() -> None:
    points = thin([(float(i), float(i % 2)) for i in range(10 * MAX_POINTS)])
    assert len(points) == MAX_POINTS and points[0] == (4.5, 0.5)
