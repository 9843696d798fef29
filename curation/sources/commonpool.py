"""CommonPool (DataComp): both CLIP similarities, original sizes, and the sha256 of the original bytes."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={
        "url": ("url",),
        "caption": ("text",),
        "source_id": ("uid",),
        "claimed_width": ("original_width",),
        "claimed_height": ("original_height",),
        "claimed_sha256": ("sha256",),
        "clip_similarity": ("clip_b32_similarity_score",),
        "clip_similarity_l14": ("clip_l14_similarity_score",),
    },
    marks=("url", "text", "uid", "clip_b32_similarity_score"),
)
