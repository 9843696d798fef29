"""URLs alone, one a line or in the only column; there are no captions."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={"url": ("url",)},
    marks=("url",),
    only=True,
)
