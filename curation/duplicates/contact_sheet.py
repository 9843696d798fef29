"""A page of picture pairs, one row a similarity bin, so that a person can see where duplicates end."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

THUMBNAIL_SIDE = 112
_STYLE = """
body { font: 14px system-ui, sans-serif; margin: 2rem auto; max-width: 94rem; padding: 0 1rem; color: #222; }
h2 { font-size: 1rem; margin: 1.6rem 0 .4rem; border-top: 1px solid #ccc; padding-top: .8rem; }
h2.limit { border-top: 3px solid #c33; }
.pairs { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; background: #f4f4f4; padding: .3rem; }
img { width: 112px; height: 112px; object-fit: contain; background: #fff; }
figcaption { font-size: 12px; color: #555; }
.frame { display: inline-block; overflow: hidden; line-height: 0; }
.frame + .frame { margin-left: 3px; }
.unsafe { filter: blur(12px); }
.unsafe:hover { filter: none; }
"""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two stored pictures (encoded bytes) and how alike they are: a cosine, or a share of equal bits."""

    left: bytes
    right: bytes
    similarity: float
    label: str
    is_blurred: tuple[bool, bool] = (False, False)
    """Whether the left and the right one are blurred until the pointer is over them."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Pairs from one range of similarity; `total` counts all of the range, of which `pairs` are a sample."""

    title: str
    total: int
    pairs: tuple[Pair, ...]
    is_removed: bool
    """Whether the current setting calls these duplicates."""
    is_doubtful: bool = False
    """Whether a second look at the pictures decides about each pair."""


def render_page(title: str, note: str, bins: Iterable[Bin]) -> str:
    """HTML that stands alone: thumbnails are inside it. Red lines show where the setting cuts and doubt begins."""
    parts, above = [], "duplicates"
    for item in bins:
        verdict = "in doubt" if item.is_doubtful else "duplicates" if item.is_removed else "kept"
        limit = ' class="limit"' if above != verdict != "duplicates" else ""
        above = verdict
        count = "1 pair" if item.total == 1 else f"{item.total:,} pairs"
        parts.append(f"<h2{limit}>{html.escape(item.title)}: {count}, {verdict}</h2>")
        parts.append(f'<div class="pairs">{"".join(map(_figure, item.pairs))}</div>')
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    return f"{head}<style>{_STYLE}</style><h1>{html.escape(title)}</h1><p>{html.escape(note)}</p>{''.join(parts)}\n"


def _figure(pair: Pair) -> str:
    pictures = "".join(map(_picture, (pair.left, pair.right), pair.is_blurred))
    return f"<figure>{pictures}<figcaption>{pair.similarity:.3f} {html.escape(pair.label)}</figcaption></figure>"


def _picture(data: bytes, is_blurred: bool) -> str:
    blur = ' class="unsafe"' if is_blurred else ""
    return f'<span class="frame"><img{blur} alt="unreadable" src="{_thumbnail(data)}"></span>'


def _thumbnail(data: bytes) -> str:
    """A data URL, without data for what Pillow cannot read: one picture must not cost the page."""
    sink = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data)) as image:
            small = image.convert("RGB")
            small.thumbnail((2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE))
            small.save(sink, "JPEG", quality=75)
    except Exception:  # Pillow lets through what its decoders raise, struct.error and AttributeError among it
        return "data:,"
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
