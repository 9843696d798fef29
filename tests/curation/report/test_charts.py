"""Charts show what they count, whatever the categories are called."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from curation.report.charts import Distribution, render_svg


def _texts(chart: Distribution) -> list[str]:
    svg = ElementTree.fromstring(render_svg(chart))
    return [element.text or "" for element in svg.iter() if element.tag.endswith("text")]


def test_bins_show_both_ends_of_their_range() -> None:
    chart = Distribution("width", ["1 to 2", "2 to 3"], [3, 4], [1, 2], 0, ends=("1", "3"))
    assert _texts(chart) == ["1", "3"]


@pytest.mark.parametrize("name", ["a to b", "<script>", "&amp;", '"quoted"', "-"])
def test_a_category_is_shown_by_its_name(name: str) -> None:
    chart = Distribution("language", [name, "en"], [3, 4], [1, 2], 0)
    assert _texts(chart) == [name, "en"]


def test_the_height_of_a_bar_is_its_share_of_the_largest() -> None:
    svg = ElementTree.fromstring(render_svg(Distribution("n", ["a", "b"], [2, 8], [1, 8], 0)))
    heights = [float(e.get("height", "0")) for e in svg.iter() if e.get("class") in ("all", "kept")]
    assert heights == pytest.approx([27.5, 13.75, 110, 110])
