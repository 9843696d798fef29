"""Perplexity of the caption by an n-gram model of your own: low for text as the model knows it (optional: kenlm).

10 to the power of minus the mean log10 probability of the words, the end of the sentence being one, as KenLM computes
it (Heafield 2011) and as CCNet uses it to find text that reads like Wikipedia (Wenzek et al. 2020, section 3.3). A
model is one file, .arpa or KenLM's binary, made by `lmplz` from text split as this filter splits it. There is no
threshold that holds for all models, so take a quantile: `caption_perplexity <= quantile(caption_perplexity, 0.9)`.
`pip install kenlm` compiles it.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.errors import UserError
from filters._words import split_words
from filters.base import Filter


@functools.lru_cache(maxsize=2)
def _model(path: str) -> Any:
    """The model at `path`, mapped into memory where it is a binary one. Raises UserError."""
    try:
        import kenlm
    except ImportError as error:
        raise UserError("The filter caption_perplexity needs KenLM: pip install kenlm.") from error
    if not os.path.isfile(path):
        raise UserError(f"There is no model {path} for the filter caption_perplexity: make one by KenLM's lmplz.")
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(path, config)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path} is no model that KenLM can read: give the .arpa or binary file that lmplz or build_binary wrote."
        ) from error


@dataclass(frozen=True, kw_only=True)
class CaptionPerplexity(Filter):
    """`caption_perplexity`, at least 1; null for a caption without words."""

    model: str
    """Path of the .arpa or binary file."""
    max_words: int = 256
    """Words that are looked at, from the beginning."""

    reads = ("caption",)
    writes = pa.schema([("caption_perplexity", pa.float32())])
    files = ("model",)

    def __post_init__(self) -> None:
        if self.max_words < 1:
            raise ValueError(f"max_words must be at least 1, not {self.max_words}")

    def check_ready(self) -> None:
        _model(self.model)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        model = _model(self.model)
        captions = (split_words(text or "")[: self.max_words] for text in batch["caption"].to_pylist())
        return self.result([model.perplexity(" ".join(words)) if words else None for words in captions])


FILTER = CaptionPerplexity
