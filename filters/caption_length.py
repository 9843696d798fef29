"""Length of the caption in characters and in words; null for a null caption, 0 for an empty one.

COYO-700M keeps 5 < characters ≤ 1000 and 3 to 256 words; DataComp's basic filtering keeps more than 2 words and more
than 5 characters. A word is a run without white space, except that each Han or kana character counts as one word
(the convention of word processors), since Chinese and Japanese are written without spaces. Thai, Lao, Khmer and
Burmese need a dictionary to be split, so their runs count as one word each.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from filters._words import UNSPACED
from filters.base import Filter


def num_words(caption: str) -> int:
    """Words in `caption`: white-space runs, Han and kana characters one each."""
    spaced, num_characters = UNSPACED.subn(" ", caption)
    return len(spaced.split()) + num_characters


@dataclass(frozen=True, kw_only=True)
class CaptionLength(Filter):
    """Characters are Unicode code points."""

    reads = ("caption",)
    writes = pa.schema([("caption_characters", pa.int32()), ("caption_words", pa.int32())])

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        captions = batch["caption"]
        words = [None if text is None else num_words(text) for text in captions.to_pylist()]
        return self.result(pc.utf8_length(captions), words)


FILTER = CaptionLength
