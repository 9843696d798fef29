"""Distributions as bars: all pictures, the kept ones in front of them, and the thresholds of rules across them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from curation.report.axes import (
    HEIGHT,
    TOP,
    WIDTH,
    Tick,
    cut_label,
    draw_bars,
    draw_frame,
    draw_tips,
    tick_counts,
    x_at,
)
from curation.report.histograms import Cut, Distribution, format_number
from curation.report.tables import divide, fold_table, format_share

LEGEND = (
    '<p class="legend"><span class="all"></span> all pictures <span class="kept"></span> kept '
    '<span class="cut"></span> threshold of a rule</p>'
)
NOTE = "<p><small>The bins at both ends hold what lies beyond the 0.5 % and 99.5 % quantiles.</small></p>"
_OTHER_SIDE = {">=": "below", ">": "at or below", "<=": "above", "<": "at or above"}


def render_distributions(charts: Iterable[Distribution]) -> str:
    """The charts side by side, with their legend."""
    figures = "".join(map(render_distribution, charts))
    return f'{LEGEND}<div class="charts">{figures}</div>{NOTE}'


def render_distribution(chart: Distribution) -> str:
    """One chart with its thresholds in words and its numbers as a table."""
    unknown = f" <small>{chart.num_unknown:,} {'others' if chart.bins is None else 'unknown'}</small>"
    rows = zip(chart.labels, chart.counts, chart.kept, strict=True)
    table = fold_table((chart.column, "pictures", "kept"), rows)
    return (
        f"<figure><figcaption>{escape(chart.column)}{unknown if chart.num_unknown else ''}</figcaption>"
        f"{draw_distribution(chart)}{_describe_cuts(chart)}{table}</figure>"
    )


def _describe_cuts(chart: Distribution) -> str:
    """The rule of each threshold with the share of pictures on each side of it."""
    items = "".join(f"<li>{_describe_cut(cut, chart.num_known, chart.num_unknown)}</li>" for cut in chart.cuts)
    return f'<ul class="cuts">{items}</ul>' if items else ""


def _describe_cut(cut: Cut, num_known: int, num_unknown: int) -> str:
    whole = num_known + num_unknown
    passed, other = format_share(divide(cut.num_passed, whole)), divide(num_known - cut.num_passed, whole)
    sides = f"{passed} on its side, {format_share(other)} {_OTHER_SIDE[cut.operator]}"
    unknown = f", {format_share(divide(num_unknown, whole))} unknown" if num_unknown else ""
    return f"<b>{escape(cut.rule)}</b> {escape(cut.operator)} {format_number(cut.value)}: {sides}{unknown}"


def draw_distribution(chart: Distribution) -> str:
    """The chart alone."""
    top = max(chart.counts)
    tips = [
        f"{label}: {count:,} pictures, {kept:,} kept"
        for label, count, kept in zip(chart.labels, chart.counts, chart.kept, strict=True)
    ]
    bars = draw_bars(chart.counts, top, "all") + draw_bars(chart.kept, top, "kept")
    body = f"{bars}{draw_tips(tips)}{_draw_cuts(chart)}"
    name = f"Distribution of {chart.column}: all pictures and the kept ones"
    return draw_frame(name, chart.column, "pictures", _tick_values(chart), tick_counts(top), body)


def _draw_cuts(chart: Distribution) -> str:
    bins = chart.bins
    if bins is None:
        return ""
    parts = []
    for cut in chart.cuts:
        place = bins.place(cut.value)
        x, anchor = x_at(place), "end" if place > 0.6 else "start"
        label = escape(cut_label(f"{cut.operator} {format_number(cut.value)}", WIDTH / 2))
        left = x - 3 if anchor == "end" else x + 3
        parts.append(
            f'<g class="cut"><line x1="{x:.1f}" y1="{TOP - 12}" x2="{x:.1f}" y2="{TOP + HEIGHT}"/>'
            f'<text x="{left:.1f}" y="{TOP - 5}" text-anchor="{anchor}">{label}</text>'
            f"<title>{escape(cut.rule)} {escape(cut.operator)} {format_number(cut.value)}</title></g>"
        )
    return "".join(parts)


def _tick_values(chart: Distribution) -> Sequence[Tick]:
    """The ends and the middle of a range, or the names of the categories, cut to the width of their bars."""
    if chart.bins is not None:
        bins = chart.bins
        numbers = (0, bins.num_bins // 2, bins.num_bins)
        return [(number / bins.num_bins, format_number(bins.edge(number))) for number in numbers]
    step = WIDTH / len(chart.labels)
    return [
        ((i + 0.5) / len(chart.labels), cut_label(label or "(empty)", step)) for i, label in enumerate(chart.labels)
    ]
