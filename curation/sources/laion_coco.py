"""LAION-COCO: LAION-2B-en with captions by BLIP, of which top_caption is the one nearest to the picture.

`TEXT` is the alternative text that the page had; `caption = ["TEXT"]` in `columns` takes it instead, and
`caption = ["top_caption", "all_captions[1]"]` keeps a second one.
"""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={
        "url": ("URL",),
        "caption": ("top_caption",),
        "source_id": ("hash",),
        "claimed_width": ("WIDTH",),
        "claimed_height": ("HEIGHT",),
        "clip_similarity": ("similarity",),
        "punsafe": ("punsafe",),
        "pwatermark": ("pwatermark",),
    },
    marks=("url", "text", "top_caption", "all_captions"),
)
