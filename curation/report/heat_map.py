"""How many pictures are how wide and how high: a square for each half power of two of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from curation.report.axes import HEIGHT, LEFT, TOP, WIDTH, Tick, draw_frame

Sides = Mapping[tuple[int, int], int]
"""Pictures by twice the log2 of width and of height."""


def draw_sides(sides: Sides) -> str:
    """The map of `sides`, which are not empty: the more pictures, the less a square lets the page shine through."""
    left, right = min(x for x, _ in sides), max(x for x, _ in sides) + 1
    low, high = min(y for _, y in sides), max(y for _, y in sides) + 1
    step_x, step_y, most = WIDTH / (right - left), HEIGHT / (high - low), max(sides.values())
    body = "".join(
        f'<rect class="kept" x="{LEFT + (x - left) * step_x:.1f}" y="{TOP + HEIGHT - (y + 1 - low) * step_y:.1f}" '
        f'width="{step_x:.1f}" height="{step_y:.1f}" fill-opacity="{0.08 + 0.92 * (count / most) ** 0.5:.2f}">'
        f"<title>{describe(x)} wide, {describe(y)} high: {count:,} pictures</title></rect>"
        for (x, y), count in sorted(sides.items())
    )
    name = "Pictures by width and height"
    return draw_frame(name, "width, pixels", "height, pixels", _tick(left, right), _tick(low, high), body)


def describe(number: int) -> str:
    """The pixels of one half power of two."""
    return f"{2 ** (number / 2):.0f} to {2 ** ((number + 1) / 2):.0f}"


def _tick(low: int, high: int) -> Iterator[Tick]:
    whole = [number for number in range(low, high + 1) if number % 2 == 0]
    for number in whole[:: max(1, len(whole) // 5)]:
        yield (number - low) / (high - low), f"{2 ** (number / 2):.0f}"
