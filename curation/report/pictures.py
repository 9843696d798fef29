"""Thumbnails of a few kept pictures, and of a few pictures that each rule removed."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from PIL import Image

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.manifest.quoting import quote_text
from curation.places import ForeignPlaceError
from curation.report.safety import is_known_safe
from curation.shards import read_member

NUM_PICTURES = 12
THUMBNAIL_SIDE = 144
BLURRED_NOTE = "<p><small>Pictures that no score calls safe are blurred until the pointer is over them.</small></p>"
_SHOWN = {"caption", "source", "width", "height", "duplicate_of"}
"""Columns that every figure shows in its own way."""


def render_galleries(manifest: Manifest, rules: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(reason, HTML) for the kept pictures ("kept"), then for each of `rules` (name → SQL) that removed any.

    Below each picture are the values of the columns that the rule names.
    """
    for reason, text in {"kept": "", **rules}.items():
        condition = "kept" if reason == "kept" else f"reason = {quote_text(reason)}"
        rows = _query_rows(manifest, f"{condition} and status = 'ok' order by uid limit {NUM_PICTURES}")
        if rows:
            named = [
                column for column in rows[0] if re.search(rf"\b{re.escape(column)}\b", text) and column not in _SHOWN
            ]
            kept = {row["uid"]: row for row in _query_kept_instead(manifest, rows)}
            figures = "".join(_render_figure(manifest, row, named, kept.get(row["duplicate_of"])) for row in rows)
            note = "<p><small>Right of each bar: the picture that was kept instead.</small></p>" if kept else ""
            note += BLURRED_NOTE if not all(map(is_known_safe, [*rows, *kept.values()])) else ""
            yield reason, f'{note}<div class="gallery">{figures}</div>'


def render_failures(manifest: Manifest) -> str:
    """A table of a few URLs for each status that is not ok; empty when every picture came."""
    rows = manifest.query(
        "select status, url, detail from (select d.status, s.url, d.detail, "
        "row_number() over (partition by d.status order by uid) as n from downloads d join samples s using (uid) "
        "where d.status <> 'ok') where n <= 2 order by status, n"
    ).fetchall()
    cells = "".join("<tr>" + "".join(f"<td>{escape(str(cell or '-'))}</td>" for cell in row) + "</tr>" for row in rows)
    head = "<tr><th>status</th><th>URL</th><th>detail</th></tr>"
    return f'<div class="scroll"><table>{head}{cells}</table></div>' if rows else ""


def _query_rows(manifest: Manifest, condition: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        manifest.query(f"select * from manifest where {condition}").to_arrow_table().to_pylist()
    )
    return rows


def _query_kept_instead(manifest: Manifest, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The kept rows of which `rows` are duplicates."""
    wanted = sorted({row["duplicate_of"] for row in rows if row["duplicate_of"]})
    return _query_rows(manifest, f"status = 'ok' and uid in ({', '.join(map(quote_text, wanted))})") if wanted else []


def _render_figure(manifest: Manifest, row: dict[str, Any], named: list[str], instead: dict[str, Any] | None) -> str:
    pictures = _render_image(manifest, row)
    if instead is not None:
        title = f"kept instead: {escape(instead['uid'])}"
        pictures += f'<span class="instead" title="{title}">{_render_image(manifest, instead)}</span>'
    caption = escape(row["caption"] or "(no caption)")
    values = "".join(f"<br>{escape(column)} {escape(_format_value(row[column]))}" for column in named)
    facts = f"{escape(row['source'] or '')} · {row['width']}×{row['height']}{values}"
    return (
        f'<figure><div class="pair">{pictures}</div>'
        f'<figcaption title="{escape(row["uid"])} {escape(row["url"] or "")}"><span>{caption}</span>'
        f"<small>{facts}</small></figcaption></figure>"
    )


def _format_value(value: object) -> str:
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _render_image(manifest: Manifest, row: dict[str, Any]) -> str:
    try:
        stored = read_member(manifest.root, row["shard"], row["offset"], row["size"], row["stored_sha256"])
        data = make_thumbnail(stored)
    except ForeignPlaceError:
        raise  # the root sends its readers where no run has been
    except (UserError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return '<div class="missing">unreadable</div>'  # a damaged shard, which `verify` names, must not hide the rest
    unsafe = "" if is_known_safe(row) else ' class="unsafe"'
    alt = escape((row["caption"] or "")[:80], quote=True)
    return f'<img{unsafe} alt="{alt}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'


def make_thumbnail(stored: bytes) -> bytes:
    """`stored` as a small JPEG. Raises the errors of Pillow for bytes that are no picture."""
    with Image.open(io.BytesIO(stored)) as picture:
        picture.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=80)
    return sink.getvalue()
