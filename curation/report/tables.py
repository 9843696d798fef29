"""Tables of the page, and the table below each chart that has its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def render_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with the column names `head`. Whole numbers have their thousands apart, and stand on the right."""
    lines = [list(row) for row in rows]
    right = [bool(lines) and all(_is_number(row[i]) for row in lines) for i in range(len(head))]
    marks = [' class="number"' if is_right else "" for is_right in right]
    names = "".join(f'<th scope="col"{mark}>{escape(name)}</th>' for mark, name in zip(marks, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{_format(cell)}</td>" for mark, cell in zip(marks, row, strict=True)) + "</tr>"
        for row in lines
    )
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


class Share(float):
    """A share, which a table shows as a percentage."""


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float)


def _format(cell: object) -> str:
    if isinstance(cell, Share):
        return format_share(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4g}" if isinstance(cell, float) else escape(str(cell if cell is not None else "–"))


def format_share(share: float) -> str:
    """A share as a percentage with two digits behind the point."""
    return f"{100 * share:.2f} %"


def divide(part: float, whole: float) -> Share:
    """The share of `part`, 0 of nothing."""
    return Share(part / whole if whole else 0.0)


def fold_table(head: Sequence[str], rows: Iterable[Sequence[object]], summary: str = "Table") -> str:
    """A table that opens by a click or a key on `summary`."""
    return f"<details><summary>{escape(summary)}</summary>{render_table(head, rows)}</details>"


def say(sentence: str) -> str:
    """A sentence as a paragraph; it says why there is nothing else."""
    return f'<p class="note">{escape(sentence)}</p>'
