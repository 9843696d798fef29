"""Re-LAION-2B research and research-safe, whose data cards are gated: names as public scripts read them."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={
        "url": ("url",),
        "caption": ("caption", "text"),
        "source_id": ("hash", "key"),
        "claimed_width": ("width", "original_width"),
        "claimed_height": ("height", "original_height"),
        "claimed_language": ("language",),
        "clip_similarity": ("similarity",),
        "punsafe": ("punsafe",),
        "pwatermark": ("pwatermark",),
        "aesthetic": ("aesthetic",),
    },
    marks=("url", "caption"),
)
