"""Thumbnails of a few kept pictures, and of a few pictures that each rule removed."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from PIL import Image

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.manifest.quoting import quote_identifier, quote_text
from curation.places import ForeignPlaceError
from curation.report.safety import is_known_safe
from curation.shards import read_member

NUM_PICTURES = 12
THUMBNAIL_SIDE = 144
MAX_BYTES = 11_000_000
"""Of the thumbnails of a page, as the page holds them, so that it stays below 15 MB."""
BLURRED_NOTE = (
    "<p><small>Pictures that no score calls safe are blurred: a click or the space bar shows one, and hides it again."
    "</small></p>"
)
KEPT = "kept"
_SHOWN = {"caption", "source", "width", "height", "duplicate_of"}
"""Columns that every figure shows in its own way."""


class PictureBudget:
    """How many bytes of thumbnails a page may still take."""

    def __init__(self, left: int = MAX_BYTES) -> None:
        self.left = left

    def take(self, count: int) -> bool:
        """Whether `count` bytes more are allowed; they are then taken."""
        if count > self.left:
            return False
        self.left -= count
        return True


def render_galleries(manifest: Manifest, rules: Mapping[str, str], budget: PictureBudget) -> Iterator[tuple[str, str]]:
    """(reason, HTML) for the kept pictures ("kept"), then for each of `rules` (name → SQL) that removed any.

    Below each picture are the values of the columns that the rule names.
    """
    uids = _choose_uids(manifest)
    for reason, text in {KEPT: "", **rules}.items():
        rows = _query_rows(manifest, uids.get(reason, ()))
        if rows:
            named = [
                column for column in rows[0] if re.search(rf"\b{re.escape(column)}\b", text) and column not in _SHOWN
            ]
            instead = {row["uid"]: row for row in _query_rows(manifest, _list_kept_instead(rows))}
            figures = "".join(
                _render_figure(manifest, row, named, instead.get(row["duplicate_of"]), budget) for row in rows
            )
            note = "<p><small>Right of each bar: the picture that was kept instead.</small></p>" if instead else ""
            note += BLURRED_NOTE if not all(map(is_known_safe, [*rows, *instead.values()])) else ""
            yield reason, f'{note}<div class="gallery">{figures}</div>'


def _choose_uids(manifest: Manifest) -> dict[str, list[str]]:
    """The least uids of each reason, and of the kept pictures. A uid is a hash, so these are pictures by chance."""
    found = manifest.query(
        f"select coalesce(reason, {quote_text(KEPT)}), min(uid, {NUM_PICTURES}) from selection "
        "where not starts_with(coalesce(reason, ''), 'download:') group by 1"
    ).fetchall()
    return {reason: sorted(uids) for reason, uids in found}


def _query_rows(manifest: Manifest, uids: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of `uids` whose picture came, sorted by uid, with all columns but those of train shards."""
    wanted = ", ".join(map(quote_text, uids))
    if not wanted:
        return []
    tables = manifest.columns_by_table()
    names = [name for table, columns in tables.items() if table != "train_index" for name in columns]
    rows: list[dict[str, Any]] = (
        manifest.query(
            f"select {', '.join(map(quote_identifier, names))} from manifest where uid in ({wanted}) and status = 'ok'"
        )
        .to_arrow_table()
        .to_pylist()
    )
    return sorted(rows, key=lambda row: str(row["uid"]))


def _list_kept_instead(rows: list[dict[str, Any]]) -> list[str]:
    """The kept rows of which `rows` are duplicates."""
    return sorted({row["duplicate_of"] for row in rows if row["duplicate_of"]})


def _render_figure(
    manifest: Manifest,
    row: dict[str, Any],
    named: list[str],
    instead: dict[str, Any] | None,
    budget: PictureBudget,
) -> str:
    pictures = _render_image(manifest, row, budget)
    if instead is not None:
        title = f"kept instead: {escape(instead['uid'])}"
        pictures += f'<span class="instead" title="{title}">{_render_image(manifest, instead, budget)}</span>'
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


def _render_image(manifest: Manifest, row: dict[str, Any], budget: PictureBudget) -> str:
    try:
        stored = read_member(manifest.root, row["shard"], row["offset"], row["size"], row["stored_sha256"])
        data = base64.b64encode(make_thumbnail(stored)).decode()
    except ForeignPlaceError:
        raise  # the root sends its readers where no run has been
    except (UserError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return '<div class="missing">unreadable</div>'  # a damaged shard, which `verify` names, must not hide the rest
    if not budget.take(len(data)):
        return '<div class="missing">left out: the page has pictures enough</div>'
    alt = escape((row["caption"] or "(no caption)")[:80], quote=True)
    image = f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'
    if is_known_safe(row):
        return image
    shows = '<input type="checkbox" autocomplete="off" aria-label="show a blurred picture">'
    return f'<label class="veil">{shows}{image}</label>'


def make_thumbnail(stored: bytes) -> bytes:
    """`stored` as a small JPEG. Raises the errors of Pillow for bytes that are no picture."""
    with Image.open(io.BytesIO(stored)) as picture:
        picture.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=80)
    return sink.getvalue()
