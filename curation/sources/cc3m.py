"""Conceptual Captions 3M: TSV without a header, the caption before the URL (Sharma et al., ACL 2018)."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={"url": ("url",), "caption": ("caption",)},
    marks=("url", "caption"),
    header=("caption", "url"),
    is_detected=False,
)
