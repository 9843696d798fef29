"""Number of nouns in the caption, by the Hanover Tagger, whose models are inside its package (optional: HanTa).

COYO-700M drops texts without a noun (Byeon et al. 2022, section "Filtering"). HanTa (Wartena 2019; 2023) tags English,
German and Dutch, about 1,000 captions a second and core. What it does not know it takes for a name, so ask the
language of the caption, too: `language = 'en' and caption_nouns > 0`. Install it by `pip install HanTa`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from curation.errors import UserError
from filters.base import Filter

MODELS = {"en": "morphmodel_en.pgz", "de": "morphmodel_ger.pgz", "nl": "morphmodel_dutch.pgz"}
MAX_LETTERS = 40
"""Of a word; its parts are searched for, which takes a time that grows with the square."""
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


@functools.cache
def _tagger(language: str) -> Any:
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ImportError as error:
        raise UserError("The filter caption_nouns needs the Hanover Tagger: pip install HanTa.") from error
    return HanoverTagger(MODELS[language])


def count_nouns(caption: str, language: str, max_words: int) -> int:
    """Nouns and names among the first words of `caption`; a word without a letter is none."""
    tokens = [token[:MAX_LETTERS] for token in _TOKEN.findall(caption)[:max_words]]
    tags = _tagger(language).tag_sent(tokens, taglevel=0) if tokens else []
    return sum(tag.startswith("N") and any(map(str.isalpha, token)) for token, tag in zip(tokens, tags, strict=True))


@dataclass(frozen=True, kw_only=True)
class CaptionNouns(Filter):
    """`caption_nouns`; null for a null caption, 0 for one without words."""

    language: Literal["en", "de", "nl"] = "en"
    max_words: int = 64
    """Words and signs that are looked at; LAION has captions of 61,192 characters."""

    reads = ("caption",)
    writes = pa.schema([("caption_nouns", pa.int32())])

    def __post_init__(self) -> None:
        if self.max_words < 1:
            raise ValueError(f"max_words must be at least 1, not {self.max_words}")

    def check_ready(self) -> None:
        _tagger(self.language)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        captions = batch["caption"].to_pylist()
        nouns = [None if text is None else count_nouns(text, self.language, self.max_words) for text in captions]
        return self.result(nouns)


FILTER = CaptionNouns
