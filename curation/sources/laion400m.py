"""LAION-400M and the original LAION-2B files, which share a schema (CLIP ViT-B/32 similarity, textual NSFW tag)."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={
        "url": ("URL",),
        "caption": ("TEXT",),
        "source_id": ("SAMPLE_ID",),
        "claimed_width": ("WIDTH",),
        "claimed_height": ("HEIGHT",),
        "claimed_language": ("LANGUAGE",),
        "license": ("LICENSE",),
        "nsfw": ("NSFW",),
        "clip_similarity": ("similarity",),
    },
    marks=("url", "text", "nsfw", "license"),
)
