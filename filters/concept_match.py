"""Which entries of a concept list the caption names, by whole-word substring match (MetaCLIP, Xu et al. 2023, §3.2).

`num_concepts` counts the distinct entries found; `concept` is the longest of them (ties: alphabetical). MetaCLIP keeps
matched captions only and caps each entry at t texts (20k at 400M scale), which rules say as
`num_concepts > 0` and `row_number() over (partition by concept order by draw('t')) <= 20000`.
Differs from MetaCLIP: a caption counts towards one entry, its most specific, not towards each; the filter
`matched_entries` with `balance` in a rule counts it towards each. With `match = "words"` an entry is found whatever the
case and the signs between words; with `match = "metaclip"` it is found where MetaCLIP's code finds it: between blanks,
of which , . ; : ? ! ` get some on either side before, case counting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from filters._lexicon import Matching, check_lexicon, match_captions
from filters.base import Filter


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
        check_lexicon(self.entries, self.match)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        matched_entries = match_captions(batch["caption"], self.entries, self.match)
        specific = [min(names, key=lambda name: (-len(name), name)) if names else None for names in matched_entries]
        return self.result([None if names is None else len(names) for names in matched_entries], specific)

    def config(self) -> dict[str, Any]:
        """See `filters.base.Filter.config`; what earlier versions recorded has no `match`."""
        config = super().config()
        if self.match == "words":
            del config["options"]["match"]
        return config


FILTER = ConceptMatch
