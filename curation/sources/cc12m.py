"""Conceptual 12M: TSV without a header, the URL before the caption (arXiv 2102.08981)."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={"url": ("url",), "caption": ("caption",)},
    marks=("url", "caption"),
    header=("url", "caption"),
    is_detected=False,
)
