"""Length of the caption in characters and in words; null for a null caption, 0 for an empty one.

COYO-700M keeps 5 < characters ≤ 1000 and 3 to 256 words; DataComp's basic filtering keeps more than 2 words and more
than 5 characters. A word is a run without white space, except that each Han or kana character counts as one word
(the convention of word processors), since Chinese and Japanese are written without spaces. Thai, Lao, Khmer and
Burmese need a dictionary to be split, so their runs count as one word each.
"""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters._words import UNSPACED
from filters.base import Filter

MAX_CHARACTERS = 1 << 21
"""Of captions that are looked at together; each takes up to ten bytes meanwhile."""
IN_WORD, BLANK, WORD = range(3)
"""Kinds of characters: part of a word, between words, a word by itself."""
_BLANK = re.compile(r"\s")


@functools.cache
def _kinds() -> np.ndarray:
    """The kind of every code point, uint8."""
    points = np.arange(sys.maxunicode + 1, dtype="<u4")
    every, kinds = points.tobytes().decode("utf-32-le", "surrogatepass"), np.zeros(len(points), np.uint8)
    for kind, pattern in ((BLANK, _BLANK), (WORD, UNSPACED)):
        kinds[[found.start() for found in pattern.finditer(every)]] = kind
    return kinds


def count_words(captions: pa.Array) -> np.ndarray:
    """Words in each of `captions`, int32 `[n]`, 0 for a null: runs without blanks, Han and kana characters one each."""
    known = captions.fill_null("")
    lengths: np.ndarray = pc.utf8_length(known).to_numpy()
    total = int(lengths.sum())
    if total > MAX_CHARACTERS and len(known) > 1:
        half = len(known) // 2
        return np.concatenate([count_words(known[:half]), count_words(known[half:])])
    kinds = _kinds()[_read_code_points(known, total)]
    ends = np.cumsum(lengths)
    firsts = (ends - lengths)[lengths > 0]
    in_word = kinds == IN_WORD
    begins = in_word.copy()
    begins[1:] &= ~in_word[:-1]
    begins[firsts] = in_word[firsts]
    counts = np.zeros(total + 1, np.int32)
    np.cumsum(begins | (kinds == WORD), out=counts[1:])
    found: np.ndarray = counts[ends] - counts[ends - lengths]
    return found


def _read_code_points(captions: pa.Array, total: int) -> np.ndarray:
    """The `total` code points of all `captions`, none of which is null, one behind the other."""
    _, offsets, data = captions.buffers()
    start, stop = np.frombuffer(offsets, np.int32)[[captions.offset, captions.offset + len(captions)]].tolist()
    text = memoryview(data or b"")[start:stop]
    if len(text) == total:  # in ASCII they are the bytes
        return np.frombuffer(text, np.uint8)
    return np.frombuffer(str(text, "utf-8").encode("utf-32-le"), "<u4")


@dataclass(frozen=True, kw_only=True)
class CaptionLength(Filter):
    """Characters are Unicode code points."""

    reads = ("caption",)
    writes = pa.schema([("caption_characters", pa.int32()), ("caption_words", pa.int32())])

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        captions = batch["caption"]
        words = pa.array(count_words(captions), mask=captions.is_null().to_numpy(zero_copy_only=False))
        return self.result(pc.utf8_length(captions), words)


FILTER = CaptionLength
