"""LAION-2B joined with its safety and watermark scores, -aesthetic and -high-resolution included."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={
        "url": ("URL",),
        "caption": ("TEXT",),
        "source_id": ("hash",),
        "claimed_width": ("WIDTH",),
        "claimed_height": ("HEIGHT",),
        "claimed_language": ("LANGUAGE",),
        "clip_similarity": ("similarity",),
        "punsafe": ("punsafe",),
        "pwatermark": ("pwatermark",),
        "aesthetic": ("aesthetic", "AESTHETIC_SCORE"),
    },
    marks=("url", "text", "similarity"),
    absent=("license",),
)
