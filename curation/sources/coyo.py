"""COYO-700M: 17 columns, with both CLIP similarities and a perceptual hash of the original picture."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={
        "url": ("url",),
        "caption": ("text",),
        "source_id": ("id",),
        "claimed_width": ("width",),
        "claimed_height": ("height",),
        "claimed_phash": ("image_phash",),
        "clip_similarity": ("clip_similarity_vitb32",),
        "clip_similarity_l14": ("clip_similarity_vitl14",),
        "punsafe": ("nsfw_score_opennsfw2",),
        "pwatermark": ("watermark_score",),
        "aesthetic": ("aesthetic_score_laion_v2",),
        "num_faces": ("num_faces",),
    },
    marks=("url", "text", "image_phash"),
)
