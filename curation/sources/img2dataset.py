"""The parquet files of an img2dataset output folder, with the scores of the set that it was run over.

`save_additional_columns` keeps the names of the source set, so every set's names are known here. img2dataset's own
width, height and sha256 describe what it stored or fetched, not what the metadata claimed.
"""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={
        "url": ("url",),
        "caption": ("caption", "text"),
        "source_id": ("SAMPLE_ID", "id", "uid", "hash", "key"),
        "claimed_phash": ("image_phash",),
        "claimed_language": ("LANGUAGE",),
        "license": ("LICENSE",),
        "nsfw": ("NSFW",),
        "clip_similarity": ("similarity", "clip_similarity_vitb32", "clip_b32_similarity_score"),
        "clip_similarity_l14": ("clip_similarity_vitl14", "clip_l14_similarity_score"),
        "punsafe": ("punsafe", "nsfw_score_opennsfw2"),
        "pwatermark": ("pwatermark", "watermark_score"),
        "aesthetic": ("aesthetic", "AESTHETIC_SCORE", "aesthetic_score_laion_v2"),
        "num_faces": ("num_faces",),
    },
    marks=("url", "key", "status", "error_message"),
)
