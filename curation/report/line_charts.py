"""Curves: values over time, over steps of a training, over ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from curation.report.axes import Tick, draw_frame, shorten, x_at, y_at

MAX_POINTS = 300
"""Points of a curve that are drawn; of more, means of neighbours."""
NUM_COLOURS = 8
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points by ascending x, called `name`."""

    name: str
    points: Sequence[Point]


def draw_curves(
    name: str,
    curves: Sequence[Curve],
    x_title: str,
    y_title: str,
    *,
    format_x: Callable[[float], str] = shorten,
    is_log: bool = False,
    from_zero: bool = False,
) -> str:
    """The curves in one chart; `is_log` draws both axes by their logarithms, which leaves out what is not positive."""
    drawn = [Curve(name=curve.name, points=thin(_scale(curve.points, is_log))) for curve in curves]
    points = [point for curve in drawn for point in curve.points]
    if not points:
        return ""
    left, right = _span([x for x, _ in points])
    low, high = _span([y for _, y in points] + ([0.0] if from_zero else []))
    body = ""
    for number, curve in enumerate(drawn):
        places = [(x_at((x - left) / (right - left)), y_at((y - low) / (high - low))) for x, y in curve.points]
        tips = [
            f"{curve.name}: {shorten(_unscale(y, is_log))} at {format_x(_unscale(x, is_log))}" for x, y in curve.points
        ]
        body += _draw_curve(places, f"c{number % NUM_COLOURS}") + _draw_tips(places, tips)
    x_ticks = [(place, format_x(_unscale(left + place * (right - left), is_log))) for place in (0.0, 0.5, 1.0)]
    y_ticks: list[Tick] = [(place, shorten(_unscale(low + place * (high - low), is_log))) for place in (0.0, 0.5, 1.0)]
    return draw_frame(name, x_title, y_title, x_ticks, y_ticks, body)


def render_legend(names: Sequence[str]) -> str:
    """The names of curves beside their colours."""
    items = "".join(f'<span class="key c{i % NUM_COLOURS}"></span> {escape(name)} ' for i, name in enumerate(names))
    return f'<p class="legend">{items}</p>'


def thin(points: Sequence[Point]) -> list[Point]:
    """At most MAX_POINTS of `points`: means of as many neighbours each."""
    every = max(1, -(-len(points) // MAX_POINTS))
    groups = [points[i : i + every] for i in range(0, len(points), every)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _scale(points: Sequence[Point], is_log: bool) -> list[Point]:
    known = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    return [(math.log10(x), math.log10(y)) for x, y in known if x > 0 and y > 0] if is_log else known


def _unscale(value: float, is_log: bool) -> float:
    return 10.0**value if is_log else value


def _span(values: Sequence[float]) -> Point:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _draw_curve(places: Sequence[Point], colour: str) -> str:
    """A line through `places`; of one place alone, a dot."""
    if len(places) == 1:
        return f'<circle class="dot {colour}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3"/>'
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="curve {colour}" d="M{line}"/>' if places else ""


def _draw_tips(places: Sequence[Point], tips: Sequence[str]) -> str:
    """A tooltip at each place, as wide as the way to the next one."""
    width = max(4.0, min((b[0] - a[0] for a, b in pairwise(places)), default=4.0))
    return "".join(
        f'<rect class="hit" x="{x - width / 2:.1f}" y="{y - 5:.1f}" width="{width:.1f}" height="10">'
        f"<title>{escape(tip)}</title></rect>"
        for (x, y), tip in zip(places, tips, strict=True)
    )
