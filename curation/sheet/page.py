"""A contact sheet: pictures with captions as HTML that needs nothing else, in a notebook's cell or as a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from curation.browse.pictures import Shown
from curation.browse.wall import Row
from curation.errors import UserError
from curation.report.safety import is_known_safe
from curation.sheet.pictures import blur

MAX_CAPTION = 300
_SHOWN = ("uid", "caption", "source", "width", "height", "kept", "reason", "status")
"""Columns that every figure shows in its own way, or not at all."""
# A notebook has its own colours, light or dark, so text and lines take theirs from what is around them.
_STYLE = """
.contact-sheet { font: 13px/1.4 system-ui, sans-serif; }
.contact-sheet .wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 16px 12px; }
.contact-sheet figure { margin: 0; min-width: 0; }
.contact-sheet .frame { height: 150px; display: flex; align-items: flex-end; overflow: hidden; }
.contact-sheet img { max-width: 100%; max-height: 150px; margin: 0; border-radius: 3px; display: block; }
.contact-sheet summary { list-style: none; cursor: pointer; }
.contact-sheet summary::-webkit-details-marker { display: none; }
.contact-sheet details[open] summary { font-size: 11px; opacity: .7; }
.contact-sheet details[open] summary img { display: none; }
.contact-sheet details[open] summary::after { content: "hide"; }
.contact-sheet details[open] > img { max-height: 130px; }
.contact-sheet figcaption { margin-top: 5px; font-size: 12px; overflow-wrap: anywhere; }
.contact-sheet .text { display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical; overflow: hidden; }
.contact-sheet small { opacity: .7; }
.contact-sheet p { margin: 0 0 10px; }
"""
_PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 24px; color: #1c1d20; background: #fff; }
@media (prefers-color-scheme: dark) { body { color: #e8e9ec; background: #16181c; } }
"""


@dataclass(frozen=True, kw_only=True)
class ContactSheet:
    """`rows` of the manifest with their `pictures`; `names` are the columns whose values stand below each one.

    A notebook shows it when it is the last value of a cell.
    """

    title: str
    rows: Sequence[Row]
    names: Sequence[str] = ()
    pictures: Sequence[Shown]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<{self._count()} of {self.title}; .save('sheet.html') writes a page>"

    def _repr_html_(self) -> str:
        figures = "".join(map(self._render_figure, self.rows, self.pictures))
        blurred = sum(map(_is_blurred, self.rows, self.pictures))
        note = f"; the {blurred} that no score calls safe are blurred until clicked" if blurred else ""
        head = f"<p><small>{escape(self._count())} of {escape(self.title)}{note}</small></p>"
        return f'<div class="contact-sheet"><style>{_STYLE}</style>{head}<div class="wall">{figures}</div></div>'

    def save(self, path: str | Path) -> None:
        """Write the sheet as an HTML page that stands alone. Raises UserError where it cannot be written."""
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(self.title)}</title>'
        page = f"{head}<style>{_PAGE_STYLE}</style><body>{self._repr_html_()}</body></html>\n"
        try:
            Path(path).write_text(page, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror or error}).") from error

    def _count(self) -> str:
        return "1 picture" if len(self) == 1 else f"{len(self):,} pictures"

    def _render_figure(self, row: Row, shown: Shown) -> str:
        facts = [str(row.get("source") or ""), f"{row['width']}×{row['height']}" if row.get("width") else ""]
        facts += [f"not kept: {row['reason']}"] if row.get("reason") else []
        lowered = {name.lower() for name in self.names} - {*_SHOWN}
        facts += [f"{name} {_format_value(value)}" for name, value in row.items() if name.lower() in lowered]
        caption = escape((row.get("caption") or "(no caption)")[:MAX_CAPTION])
        small = " · ".join(map(escape, filter(None, facts)))
        return (
            f'<figure title="{escape(str(row["uid"]))}"><div class="frame">{_render_picture(row, shown)}</div>'
            f'<figcaption><span class="text">{caption}</span><small>{small}</small></figcaption></figure>'
        )


def _render_picture(row: Row, shown: Shown) -> str:
    """The picture; of one that is not known to be safe, what a click opens."""
    alt = escape((row.get("caption") or "")[:80])
    image = f'<img alt="{alt}" src="{_data_url(shown)}">'
    if not _is_blurred(row, shown):
        return image
    cover = f'<img alt="blurred, click to see it" src="{_data_url(blur(shown))}">'
    return f"<details><summary>{cover}</summary>{image}</details>"


def _is_blurred(row: Row, shown: Shown) -> bool:
    """Whether a picture, not a drawing in its place, is not known to be safe."""
    return shown.content_type == "image/jpeg" and not is_known_safe(row)


def _data_url(shown: Shown) -> str:
    return f"data:{shown.content_type};base64,{base64.b64encode(shown.data).decode()}"


def _format_value(value: object) -> str:
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
