"""Charts as inline SVG: the frame with its axes and labels, which every chart of the report has.

A chart has a name for screen readers, a tooltip for each of its parts, labels of both axes, and below it the same
numbers as a table (`tables.py`), which keyboards and screen readers reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

LEFT, TOP, WIDTH, HEIGHT = 46, 24, 300, 116
"""Where the plot begins in a chart, and how large it is, in units of the chart's own."""
FULL_WIDTH, FULL_HEIGHT = LEFT + WIDTH + 8, TOP + HEIGHT + 34
_LETTERS = 5.4
"""The width of a letter of a label."""
Tick = tuple[float, str]
"""Where a label stands on its axis, from 0 to 1, and what it says."""


def draw_frame(
    name: str, x_title: str, y_title: str, x_ticks: Iterable[Tick], y_ticks: Iterable[Tick], body: str
) -> str:
    """The chart called `name` around `body`, which is drawn in the chart's own units. Titles and ticks are texts."""
    parts = [f'<svg viewBox="0 0 {FULL_WIDTH} {FULL_HEIGHT}" role="img" aria-label="{escape(name)}">']
    for place, label in y_ticks:
        y = y_at(place)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + WIDTH}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{escape(label)}</text>')
    for place, label in x_ticks:
        anchor = "start" if place < 0.02 else "end" if place > 0.98 else "middle"
        parts.append(
            f'<text x="{x_at(place):.1f}" y="{TOP + HEIGHT + 13}" text-anchor="{anchor}">{escape(label)}</text>'
        )
    bottom = TOP + HEIGHT
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{LEFT + WIDTH}" y2="{bottom}"/>{body}')
    middle, low = LEFT + WIDTH / 2, FULL_HEIGHT - 5
    parts.append(f'<text class="title" x="{middle}" y="{low}" text-anchor="middle">{escape(x_title)}</text>')
    parts.append(f'<text class="title" x="{LEFT - 44}" y="10">{escape(y_title)}</text></svg>')
    return "".join(parts)


def x_at(place: float) -> float:
    """The abscissa of `place`, from 0 (left) to 1 (right)."""
    return LEFT + WIDTH * place


def y_at(place: float) -> float:
    """The ordinate of `place`, from 0 (below) to 1 (above)."""
    return TOP + HEIGHT * (1 - place)


def tick_counts(top: float) -> list[Tick]:
    """Labels of an axis of whole numbers from 0 to `top`."""
    middle = top // 2
    between = [(middle / top, shorten(middle))] if middle else []
    return [(0.0, "0"), *between, (1.0, shorten(top))] if top else [(0.0, "0")]


def shorten(value: float) -> str:
    """`value` in few letters: 12k, 3.4M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def cut_label(text: str, width: float) -> str:
    """`text`, cut to `width` of the chart's own units."""
    most = max(1, int(width / _LETTERS))
    return text if len(text) <= most else f"{text[: max(1, most - 1)]}…"


def draw_bars(values: Sequence[float], top: float, kind: str) -> str:
    """Bars of equal width from left to right as one shape of class `kind`; `top` is the value as high as the plot."""
    step = WIDTH / max(len(values), 1)
    shape = "".join(
        f"M{LEFT + i * step + 0.5:.1f} {TOP + HEIGHT}v{-HEIGHT * value / top:.2f}h{max(step - 1, 0.6):.1f}"
        f"v{HEIGHT * value / top:.2f}z"
        for i, value in enumerate(values)
        if value
    )
    return f'<path class="{kind}" d="{shape}"/>' if shape else ""


def draw_tips(tips: Sequence[str]) -> str:
    """Tooltips of equal parts of the plot from left to right."""
    step = WIDTH / max(len(tips), 1)
    return "".join(
        f'<rect class="hit" x="{LEFT + i * step:.1f}" y="{TOP}" width="{step:.1f}" height="{HEIGHT}">'
        f"<title>{escape(tip)}</title></rect>"
        for i, tip in enumerate(tips)
    )
