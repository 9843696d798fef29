"""Captions that say nothing of the picture: file names, placeholders, mostly digits or symbols.

`caption_letters` is the share of letters among the characters that are not white space; `caption_boilerplate` is true
for file names ("IMG_1234.jpg") and for placeholders ("image", "untitled") standing alone. Null for a null caption;
`caption_letters` is null for an empty one too. The patterns follow the text rules of Conceptual Captions (Sharma et
al. 2018, section 3.2: boiler-plate prefixes and file names are dropped).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import pyarrow as pa

from filters.base import Filter

_FILE_NAME = re.compile(r"[\w\-.() %]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif)", re.IGNORECASE)
_CAMERA_NAME = re.compile(r"(?:img|dsc[nf]?|pict?|p|mvi|sam|gopr|screenshot|wp|cimg)[\s_\-]*\d[\d\s_\-.()]*", re.I)
_PLACEHOLDER = re.compile(
    r"(?:an?|the|no|default|missing|main|featured|related|post|product|article|blog|click to enlarge)?\s*"
    r"(?:image|img|photo|picture|pic|thumbnail|thumb|icon|logo|banner|avatar|untitled|placeholder|description|caption"
    r"|spacer|click to enlarge|alt text|n/?a|null|none|undefined|loading)"
    r"(?:\s+(?:not available|unavailable|coming soon|not found|available|description|caption|here|\d+))?[\s.:!…]*",
    re.IGNORECASE,
)


def is_boilerplate(caption: str) -> bool:
    """True when the whole of `caption` is empty, a file name or a placeholder."""
    text = caption.strip()
    return not text or any(p.fullmatch(text) for p in (_FILE_NAME, _CAMERA_NAME, _PLACEHOLDER))


def letters(caption: str) -> float | None:
    """Share of letters (any script, combining marks included) among the characters that are not white space."""
    visible = [c for c in caption if not c.isspace()]
    return sum(unicodedata.category(c)[0] in "LM" for c in visible) / len(visible) if visible else None


@dataclass(frozen=True, kw_only=True)
class CaptionBoilerplate(Filter):
    """`caption_boilerplate` bool, `caption_letters` in [0, 1]."""

    reads = ("caption",)
    writes = pa.schema([("caption_boilerplate", pa.bool_()), ("caption_letters", pa.float32())])

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        captions = batch["caption"].to_pylist()
        return self.result(
            [None if text is None else is_boilerplate(text) for text in captions],
            [None if text is None else letters(text) for text in captions],
        )


FILTER = CaptionBoilerplate
