"""Which entries of a concept list the caption names, by whole-word substring match (MetaCLIP, Xu et al. 2023, §3.2).

`num_concepts` counts the distinct entries found; `concept` is the longest of them (ties: alphabetical). MetaCLIP keeps
matched captions only and caps each entry at t texts (20k at 400M scale), which rules say as
`num_concepts > 0` and `row_number() over (partition by concept order by uid) <= 20000`.
Differs from MetaCLIP: a caption counts towards one entry, its most specific, not towards each.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import pyarrow as pa

from curation.errors import UserError
from filters.base import Filter

_WORD = re.compile(r"\w+")


@functools.lru_cache(maxsize=4)
def _entries(path: str) -> tuple[frozenset[str], int]:
    """The entries of file `path` (one a line) as lower-case words joined by blanks, and the most words of any."""
    try:
        with open(path, encoding="utf-8") as lines:
            entries = frozenset(filter(None, (_normalise(line) for line in lines)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The concept list {path} cannot be read as UTF-8 text: {error}.") from error
    if not entries:
        raise UserError(f"The concept list {path} is empty: give one concept a line.")
    return entries, max(entry.count(" ") + 1 for entry in entries)


def _normalise(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def matches(caption: str, entries: frozenset[str], max_words: int) -> set[str]:
    """The entries that occur in `caption` as whole words; cost O(words · max_words)."""
    words = _WORD.findall(caption.lower())
    spans = (
        " ".join(words[start:stop])
        for start in range(len(words))
        for stop in range(start + 1, min(start + max_words, len(words)) + 1)
    )
    return {span for span in spans if span in entries}


@dataclass(frozen=True, kw_only=True)
class ConceptMatch(Filter):
    """Null for a null caption; `concept` is null too where nothing matches."""

    entries: str
    """UTF-8 file with one concept a line."""

    reads = ("caption",)
    writes = pa.schema([("num_concepts", pa.int32()), ("concept", pa.string())])
    files = ("entries",)

    def check_ready(self) -> None:
        _entries(self.entries)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        entries, max_words = _entries(self.entries)
        captions = batch["caption"].to_pylist()
        matched_entries = [None if text is None else matches(text, entries, max_words) for text in captions]
        specific = [min(names, key=lambda name: (-len(name), name)) if names else None for names in matched_entries]
        return self.result([None if names is None else len(names) for names in matched_entries], specific)


FILTER = ConceptMatch
