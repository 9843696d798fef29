"""What the JSON and text members of one sample say: its caption, its URL and the other values, as text.

Of several captions the first that is not empty counts: those of the JSON, then those of the texts. The others are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.adopt import caption_columns
from curation.metadata.json_rows import value_text
from curation.schema import name_captions

TEXTS = ("txt", "caption", "text")
"""Extensions of members that hold a caption and nothing else."""
MAX_TEXT_BYTES = 1 << 20
MAX_JSON_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Record:
    """`values` of one sample by their names in lower case, its captions as `caption`, `caption_2` …

    `is_text` is False when the URL is no UTF-8, or all captions are none.
    """

    values: Mapping[str, str | None]
    is_text: bool = True


def parse_record(json_bytes: bytes | None, texts: Sequence[bytes] = ()) -> Record:
    """The values of a sample from its JSON, where it has one, and its texts. Unreadable JSON says nothing."""
    found = _parse_object(json_bytes or b"{}")
    named = sorted(filter(caption_columns.is_caption, found), key=caption_columns.rank)
    said = [text for name in named for text in _list_captions(found[name])]
    said += [data.decode("utf-8-sig", "surrogateescape") for data in texts]
    known = caption_columns.keep_different(filter(_is_utf8, said))
    values: dict[str, str | None] = {"caption": None, **dict(zip(name_captions(len(known)), known, strict=False))}
    url = found.get("url")
    for name, value in found.items():
        if isinstance(value, str | int | float) and not caption_columns.is_caption(name):
            text = value_text(value) if isinstance(value, float) else str(value)
            values |= {name: text} if _is_utf8(name) and _is_utf8(text) else {}
    is_text = (bool(known) or not any(said)) and (not isinstance(url, str) or _is_utf8(url))
    return Record(values=values, is_text=is_text)


def _parse_object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode(json.detect_encoding(data), "surrogateescape"))
    except (ValueError, RecursionError):
        return {}
    return {str(name).lower(): value for name, value in found.items()} if isinstance(found, dict) else {}


def _list_captions(value: Any) -> Iterator[str]:
    """The caption that `value` is, or those of a list; nothing of anything else."""
    if isinstance(value, list):
        for one in value:
            yield from _list_captions(one)
    elif isinstance(value, str | float | int):
        yield (value_text(value) if isinstance(value, float) else str(value)) or ""


def _is_utf8(text: str | None) -> bool:
    """Whether `text` can be written as UTF-8, which a surrogate alone (`"\\ud83c"` in JSON) cannot."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True
