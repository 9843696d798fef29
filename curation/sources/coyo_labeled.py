"""COYO-Labeled-300M: labels of ImageNet-21k and no captions (kakaobrain/coyo-dataset, subset/COYO-Labeled-300M)."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={
        "url": ("url",),
        "source_id": ("id",),
        "claimed_width": ("width",),
        "claimed_height": ("height",),
        "claimed_phash": ("imagehash",),
    },
    marks=("url", "imagehash", "labels"),
)
