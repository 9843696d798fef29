"""Words of a caption, as the filters count them."""

from __future__ import annotations

import re

# Hiragana, katakana, their extensions and half-width forms, and the blocks of Han ideographs.
_UNSPACED = (
    "\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\uff66-\uff9d\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
UNSPACED = re.compile(f"[{_UNSPACED}]")
"""A character of a script that is written without blanks."""
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


def split_words(caption: str) -> list[str]:
    """The words of `caption` in lower case without the signs between them; Han and kana characters are one each."""
    return _WORD.findall(caption.lower())
