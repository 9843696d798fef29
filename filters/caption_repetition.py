"""How much of the caption repeats itself: keyword lists, titles pasted twice, spam.

The measures are the repetition rules of MassiveText (Rae et al. 2021, "Gopher", appendix A.1.1, table A1) on one line:
the share of characters in the most frequent 2-, 3- and 4-gram, and in all 5- to 10-grams that occur more than once. Its
limits are 0.20, 0.18, 0.16 for the former and 0.15, 0.14, 0.13, 0.12, 0.11, 0.10 for the latter. They were chosen for
documents; for captions look at `curate select --what-if` first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from filters._words import split_words
from filters.base import Filter

TOP = range(2, 5)
REPEATED = range(5, 11)


def repetition(words: Sequence[str]) -> list[float]:
    """The share of `words` that stand before already, then the shares of characters, in the order of the columns."""
    shares = [1 - len(set(words)) / len(words)]
    for n in (*TOP, *REPEATED):
        starts = _find_repeated(words, n)
        if not starts:  # an n-gram that occurs twice has parts that occur twice
            break
        shares.append(_top_share(words, n, starts) if n in TOP else _share(words, n, (s for at in starts for s in at)))
    return shares + [0.0] * (1 + len(TOP) + len(REPEATED) - len(shares))


def _find_repeated(words: Sequence[str], n: int) -> list[list[int]]:
    """Where the n-grams begin that occur more than once."""
    places = defaultdict[tuple[str, ...], list[int]](list)
    for start in range(len(words) - n + 1):
        places[tuple(words[start : start + n])].append(start)
    return [starts for starts in places.values() if len(starts) > 1]


def _top_share(words: Sequence[str], n: int, places: Sequence[list[int]]) -> float:
    """Of the most frequent n-gram; of several, the one that covers most."""
    most = max(map(len, places))
    return max(_share(words, n, starts) for starts in places if len(starts) == most)


def _share(words: Sequence[str], n: int, starts: Iterable[int]) -> float:
    """Share of the characters of `words` in the n-grams that begin at `starts`; none counts twice."""
    covered = {place for start in starts for place in range(start, start + n)}
    return sum(len(words[place]) for place in covered) / sum(map(len, words))


@dataclass(frozen=True, kw_only=True)
class CaptionRepetition(Filter):
    """All in [0, 1]; null for a caption without words. An n-gram that occurs once is no repetition."""

    reads = ("caption",)
    writes = pa.schema(
        [
            ("caption_repeated_words", pa.float32()),
            *((f"caption_top_{n}gram", pa.float32()) for n in TOP),
            *((f"caption_repeated_{n}grams", pa.float32()) for n in REPEATED),
        ]
    )

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        words = [split_words(text or "") for text in batch["caption"].to_pylist()]
        unknown = [None] * len(self.writes)
        rows = [repetition(each) if each else unknown for each in words]
        return self.result(*([row[place] for row in rows] for place in range(len(self.writes))))


FILTER = CaptionRepetition
