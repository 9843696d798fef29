"""What cc2dataset writes of Common Crawl: url, alt and its own uid (rom1504/cc2dataset, process_wat)."""

from curation.sources import SourceFormat

FORMAT = SourceFormat(
    columns={"url": ("url",), "caption": ("alt",), "source_id": ("uid",)},
    marks=("url", "alt"),
)
