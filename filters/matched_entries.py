"""All entries of a concept list that the caption names, for MetaCLIP's balancing (Xu et al. 2023, algorithm 1).

`matched_entries` has them one a line, in alphabetical order. MetaCLIP keeps a caption when one of its entries samples
it, each with probability min(1, t / n) where n captions have the entry: `balance(matched_entries, 20000, 't')`.
The list and the ways to match are those of `concept_match`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from filters._lexicon import Matching, check_lexicon, match_captions
from filters.base import Filter


@dataclass(frozen=True, kw_only=True)
class MatchedEntries(Filter):
    """Null where the caption names none."""

    entries: str
    """UTF-8 file with one concept a line."""
    match: Matching = "words"

    reads = ("caption",)
    writes = pa.schema([("matched_entries", pa.string())])
    files = ("entries",)

    def check_ready(self) -> None:
        check_lexicon(self.entries, self.match)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found = match_captions(batch["caption"], self.entries, self.match)
        return self.result(["\n".join(sorted(names)) if names else None for names in found])


FILTER = MatchedEntries
