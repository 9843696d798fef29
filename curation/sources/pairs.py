"""Any file with URLs and captions under one of their usual names."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={
        "url": ("url", "image_url", "img_url"),
        "caption": ("caption", "text", "title", "description"),
        "source_id": ("id", "uid", "key", "hash"),
        "claimed_width": ("width",),
        "claimed_height": ("height",),
    },
    marks=("url",),
)
