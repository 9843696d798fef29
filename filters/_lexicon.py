"""A list of entries, and which of them a caption names: whole-word substring match (MetaCLIP, Xu et al. 2023, §3.2)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from curation.errors import UserError

_WORD = re.compile(r"\w+")
_SIGN = re.compile(r"([,.;:?!`])")
_BLANKS = str.maketrans("\t\n\r", "   ")
Matching = Literal["words", "metaclip"]


def split_at_signs(text: str) -> list[str]:
    """The words of `text` in lower case, without the signs between them."""
    return _WORD.findall(text.lower())


def split_at_blanks(text: str) -> list[str]:
    """What stands between the blanks of `text` as MetaCLIP spaces it; empty where several follow each other."""
    return _SIGN.sub(r" \1 ", text).translate(_BLANKS).split(" ")


@dataclass(frozen=True)
class Lexicon:
    """Entries, as their words joined by blanks."""

    entries: frozenset[str]
    lengths: Mapping[str, Sequence[int]] = field(init=False)
    """First word → how many words the entries that begin by it have, in rising order."""

    def __post_init__(self) -> None:
        lengths: dict[str, set[int]] = {}
        for entry in self.entries:
            lengths.setdefault(entry.partition(" ")[0], set()).add(entry.count(" ") + 1)
        object.__setattr__(self, "lengths", {word: tuple(sorted(counts)) for word, counts in lengths.items()})

    def match(self, words: Sequence[str]) -> set[str]:
        """The entries whose words follow each other in `words`."""
        found = set()
        for start, word in enumerate(words):
            for length in self.lengths.get(word, ()):
                span = word if length == 1 else " ".join(words[start : start + length])
                if span in self.entries and start + length <= len(words):
                    found.add(span)
        return found


def make_lexicon(lines: Iterable[str], match: Matching) -> Lexicon:
    """The entries of `lines` that are not empty: their words, or the lines as they are."""
    if match == "words":
        return Lexicon(frozenset(filter(None, (" ".join(split_at_signs(line)) for line in lines))))
    return Lexicon(frozenset(filter(str.strip, (line.rstrip("\r\n") for line in lines))))


@functools.lru_cache(maxsize=4)
def _lexicon(path: str, match: Matching) -> Lexicon:
    """The lexicon of the file at `path`, one entry a line. Raises UserError."""
    try:
        with open(path, encoding="utf-8") as lines:
            lexicon = make_lexicon(lines, match)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The concept list {path} cannot be read as UTF-8 text: {error}.") from error
    if not lexicon.entries:
        raise UserError(f"The concept list {path} is empty: give one concept a line.")
    return lexicon


_SPLIT: Mapping[Matching, Callable[[str], list[str]]] = {"words": split_at_signs, "metaclip": split_at_blanks}


def check_lexicon(path: str, match: Matching) -> None:
    """Raise UserError when the file at `path` is no list of entries."""
    _lexicon(path, match)


def match_captions(captions: pa.Array, path: str, match: Matching) -> list[set[str] | None]:
    """The entries of the file at `path` that each caption names; None for a null caption. Raises UserError."""
    lexicon, split = _lexicon(path, match), _SPLIT[match]
    return [None if text is None else lexicon.match(split(text)) for text in captions.to_pylist()]
