"""Bars show what they count, thresholds the share on each side, whatever the categories are called."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from curation.report.axes import HEIGHT, WIDTH
from curation.report.bar_charts import draw_distribution, render_distribution
from curation.report.histograms import Bins, Cut, Distribution

BINS = Bins(1, 1, 2)


def _parse(chart: Distribution) -> ElementTree.Element:
    return ElementTree.fromstring(draw_distribution(chart))


def _texts(chart: Distribution) -> list[str]:
    return [element.text or "" for element in _parse(chart).iter() if element.tag.endswith("text")]


def test_both_axes_have_labels_and_a_title() -> None:
    texts = _texts(Distribution("width", ("1 to 2", "2 to 3"), (3, 4), (1, 2), 0, BINS))
    assert {"1", "2", "3", "0", "4", "width", "pictures"} <= set(texts)


@pytest.mark.parametrize("name", ["a to b", "<script>", "&amp;", '"quoted"', "-"])
def test_a_category_is_shown_by_its_name(name: str) -> None:
    chart = Distribution("language", (name, "en"), (3, 4), (1, 2), 0)
    assert {name, "en"} <= set(_texts(chart))
    assert any(f"{name}: 3 pictures, 1 kept" == each.text for each in _parse(chart).iter())


def test_the_height_of_a_bar_is_its_share_of_the_largest() -> None:
    shapes = [
        each.get("d", "") for each in _parse(Distribution("n", ("a", "b"), (2, 8), (1, 8), 0)).iter() if each.get("d")
    ]
    heights = [[-float(height) for height in re.findall(r"v(-[\d.]+)h", shape)] for shape in shapes]
    assert heights == [pytest.approx([HEIGHT / 4, HEIGHT]), pytest.approx([HEIGHT / 8, HEIGHT], abs=0.01)]


def test_a_threshold_stands_where_it_divides_the_bins_with_the_share_on_each_side() -> None:
    chart = Distribution("n", ("1 to 2", "2 to 3"), (30, 60), (0, 60), 10, BINS, (Cut("big <&>", ">=", 2, 60),))
    (line,) = [each for each in _parse(chart).iter() if each.get("class") == "cut"]
    assert float(line[0].get("x1", "")) == pytest.approx(46 + WIDTH / 2)
    html = render_distribution(chart)
    assert "<b>big &lt;&amp;&gt;</b> &gt;= 2: 60.00 % on its side, 30.00 % below, 10.00 % unknown" in html


def test_the_numbers_of_a_chart_stand_in_a_table_that_opens_by_key() -> None:
    html = render_distribution(Distribution("<n>", ("1 to 2", "2 to 3"), (3_000, 4), (1, 2), 7, BINS))
    assert "<details><summary>Table</summary>" in html and '<th scope="col">&lt;n&gt;</th>' in html
    assert '<td>1 to 2</td><td class="number">3,000</td><td class="number">1</td>' in html and "7 unknown" in html
