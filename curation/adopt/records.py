"""What the JSON and text members of one sample say: its caption, its URL and the other values, as text.

Of several captions the first that is not empty counts: those of the JSON, then those of the texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curation.metadata.json_rows import value_text

TEXTS = ("txt", "caption", "text")
"""Extensions of members that hold a caption and nothing else."""
CAPTIONS = ("caption", "text", "captions", "texts", "txt")
"""Keys of JSON members that hold a caption, or a list of captions."""
MAX_TEXT_BYTES = 1 << 20
MAX_JSON_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Record:
    """`values` of one sample by their names in lower case. `is_text` is False when caption or URL are no UTF-8."""

    values: Mapping[str, str | None]
    is_text: bool = True


def parse_record(json_bytes: bytes | None, text_bytes: bytes | None) -> Record:
    """The values of a sample from its JSON and its text; None where it has none. Unreadable JSON says nothing."""
    found = _parse_object(json_bytes or b"{}")
    values: dict[str, str | None] = {}
    for name, value in found.items():
        if isinstance(value, str | int | float):
            values[name] = value_text(value) if isinstance(value, float) else str(value)
    is_text = True
    caption = next((text for name in CAPTIONS if (text := _first_caption(found.get(name)))), None)
    if caption is None and text_bytes:
        caption, is_text = _decode(text_bytes)
    is_text = is_text and _is_utf8(caption) and _is_utf8(values.get("url"))
    known = {name: value for name, value in values.items() if _is_utf8(name) and _is_utf8(value)}
    return Record(values=known | {"caption": caption if is_text else None}, is_text=is_text)


def _parse_object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode(json.detect_encoding(data), "surrogateescape"))
    except (ValueError, RecursionError):
        return {}
    return {str(name).lower(): value for name, value in found.items()} if isinstance(found, dict) else {}


def _first_caption(value: Any) -> str | None:
    """The caption that `value` is, or the first of a list that is not empty; None of anything else."""
    if isinstance(value, list):
        return next((text for one in value if (text := _first_caption(one))), None)
    return value_text(value) if isinstance(value, str | float) else str(value) if isinstance(value, int) else None


def _decode(data: bytes) -> tuple[str | None, bool]:
    """The text of `data` (None when it is empty), and whether it is UTF-8. A byte order mark is no part of it."""
    try:
        return data.decode("utf-8-sig") or None, True
    except UnicodeDecodeError:
        return None, False


def _is_utf8(text: str | None) -> bool:
    """Whether `text` can be written as UTF-8, which a surrogate alone (`"\\ud83c"` in JSON) cannot."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True
