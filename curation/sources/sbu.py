"""SBU Captions: one JSON document with a list each of image_urls, captions and user_names (NeurIPS 2011)."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={"url": ("image_urls", "image_url"), "caption": ("captions", "caption")},
    marks=("image_urls", "captions"),
)
