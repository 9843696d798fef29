"""Which entries of a concept list the caption names, by whole-word substring match (MetaCLIP, Xu et al. 2023, §3.2).

`num_concepts` counts the distinct entries found; `concept` is the longest of them (ties: alphabetical). MetaCLIP keeps
matched captions only and caps each entry at t texts (20k at 400M scale), which rules say as
`num_concepts > 0` and `row_number() over (partition by concept order by draw('t')) <= 20000`.
Differs from MetaCLIP: a caption counts towards one entry, its most specific, not towards each. With `match = "words"`
an entry is found whatever the case and the signs between words; with `match = "metaclip"` it is found where MetaCLIP's
code finds it: between blanks, of which , . ; : ? ! ` get some on either side before, case counting.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from curation.errors import UserError
from filters.base import Filter

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


@dataclass(frozen=True, kw_only=True)
class ConceptMatch(Filter):
    """Null for a null caption; `concept` is null too where nothing matches."""

    entries: str
    """UTF-8 file with one concept a line."""
    match: Matching = "words"

    reads = ("caption",)
    writes = pa.schema([("num_concepts", pa.int32()), ("concept", pa.string())])
    files = ("entries",)

    def check_ready(self) -> None:
        _lexicon(self.entries, self.match)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        lexicon, split = _lexicon(self.entries, self.match), _SPLIT[self.match]
        captions = batch["caption"].to_pylist()
        matched_entries = [None if text is None else lexicon.match(split(text)) for text in captions]
        specific = [min(names, key=lambda name: (-len(name), name)) if names else None for names in matched_entries]
        return self.result([None if names is None else len(names) for names in matched_entries], specific)

    def config(self) -> dict[str, Any]:
        """See `filters.base.Filter.config`; what earlier versions recorded has no `match`."""
        config = super().config()
        if self.match == "words":
            del config["options"]["match"]
        return config


FILTER = ConceptMatch
