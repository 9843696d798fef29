"""A plot of growth as SVG: CPU seconds over rows, a line a stage, both axes logarithmic."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 760, 460, 70, 50, 170, 20
COLOURS = (
    "#1b6ca8", "#d1495b", "#66a182", "#edae49", "#6a4c93", "#3d405b", "#00b4a0", "#8c5a2b", "#8d99ae", "#e07bb5",
)  # fmt: skip


def draw_growth(rows: Sequence[dict[str, Any]]) -> str:
    """The plot of `rows`, which have `rows`, `stage` and `CPU s`; an SVG document."""
    across = _decades([row["rows"] for row in rows])
    up = _decades([row["CPU s"] for row in rows])
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    for decade in range(across[0], across[1] + 1):
        parts += _grid_line(_x(10.0**decade, across), True, f"{10**decade:,} rows")
    for decade in range(up[0], up[1] + 1):
        parts += _grid_line(_y(10.0**decade, up), False, f"{10.0**decade:g} CPU s")
    for number, stage in enumerate(stages):
        colour = COLOURS[number % len(COLOURS)]
        points = sorted((row["rows"], row["CPU s"]) for row in rows if row["stage"] == stage)
        places = [(_x(n, across), _y(s, up)) for n, s in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        y = TOP + 16 * (number + 1)
        parts.append(
            f'<text x="{WIDTH - RIGHT + 15}" y="{y}" font-size="12" fill="{colour}">{html.escape(stage)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return first, max(last, first + 1)


def _share(value: float, decades: tuple[int, int]) -> float:
    return (math.log10(value) - decades[0]) / (decades[1] - decades[0])


def _x(value: float, decades: tuple[int, int]) -> float:
    return LEFT + _share(value, decades) * (WIDTH - LEFT - RIGHT)


def _y(value: float, decades: tuple[int, int]) -> float:
    return HEIGHT - BOTTOM - _share(value, decades) * (HEIGHT - BOTTOM - TOP)


def _grid_line(place: float, is_vertical: bool, label: str) -> list[str]:
    if is_vertical:
        line = f'<line x1="{place:.1f}" y1="{TOP}" x2="{place:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>'
        where = f'x="{place:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle"'
    else:
        line = f'<line x1="{LEFT}" y1="{place:.1f}" x2="{WIDTH - RIGHT}" y2="{place:.1f}" stroke="#ddd"/>'
        where = f'x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end"'
    return [line, f'<text {where} font-size="11">{label}</text>']
