"""The scores of one unit, as every engine computes them: its rows are read in batches, each once for all filters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from curation.schema import DOWNLOADS, SAMPLES, Status, is_further_caption
from curation.shards import check_member
from curation.storage import Root
from curation.tables import downloads_file, read_samples, scores_table, unit_file
from filters._gray import MAX_BATCH
from filters.base import IMAGE, Filter
from jobs.scoring.vector_columns import list_columns, read_vectors

ROWS_PER_BATCH = {True: MAX_BATCH // 4, False: 16_384}
"""Rows of one batch, with pictures (their bytes are held) and without."""


def score_unit(root: Root, unit: str, wanted: Mapping[str, Filter]) -> int:
    """Compute and publish the scores of `wanted` for one unit; returns the number of rows scored."""
    columns = {name: list_columns(item) for name, item in wanted.items()}
    reads = {column for listed in columns.values() for column in listed}
    parts: dict[str, list[pa.RecordBatch]] = {name: [] for name in wanted}
    uids: list[str] = []
    for batch in read_batches(root, unit, reads):
        uids += batch["uid"].to_pylist()
        for name, item in wanted.items():
            parts[name].append(item.apply(batch.select(columns[name]).rename_columns(list(item.reads))))
    for name, item in wanted.items():
        scores = pa.Table.from_batches(parts[name], schema=item.writes)
        table = scores.add_column(0, SAMPLES.field("uid"), pa.array(uids, pa.string()))
        root.publish_parquet(unit_file(scores_table(name), unit), table.sort_by("uid"))
    return len(uids)


def read_batches(root: Root, unit: str, reads: set[str]) -> Iterator[pa.RecordBatch]:
    """The unit's rows with status ok: `uid` and the columns `reads`, in the order of the pictures in their shard.

    Columns of vectors are named as by `jobs.scoring.vector_columns.list_columns`.
    """
    rows = _read_rows(root, unit, reads)
    for column in sorted(name for name in reads if "@" in name):
        rows = rows.append_column(column, read_vectors(root, unit, column, rows["uid"].to_pylist()))
    with_images = IMAGE.name in reads
    for batch in rows.combine_chunks().to_batches(ROWS_PER_BATCH[with_images]):
        images = _read_images(root, batch) if with_images else None
        yield batch if images is None else batch.append_column(IMAGE, images)


def _read_rows(root: Root, unit: str, reads: set[str]) -> pa.Table:
    place = {"status", "shard", "offset", "size", "stored_sha256"}
    from_downloads = [f.name for f in DOWNLOADS if f.name == "uid" or f.name in reads | place]
    from_samples = [f.name for f in SAMPLES if f.name == "uid" or f.name in reads]
    from_samples += sorted(filter(is_further_caption, reads))
    downloads = root.read_parquet(downloads_file(unit), from_downloads)
    downloads = downloads.filter(pc.equal(downloads["status"], Status.OK.value))
    samples = read_samples(root, unit, from_samples)
    joined = downloads.join(samples, "uid", join_type="left outer")
    return joined.sort_by([("shard", "ascending"), ("offset", "ascending"), ("uid", "ascending")])


def _read_images(root: Root, batch: pa.RecordBatch) -> pa.Array:
    """Stored bytes of each row, by one range read for each shard of the batch. Raises UserError for damaged ones."""
    images: list[bytes] = []
    names = ("shard", "offset", "size", "stored_sha256")
    places = list(zip(*(batch[name].to_pylist() for name in names), strict=True))
    for shard in dict.fromkeys(place[0] for place in places):
        spans = [place[1:] for place in places if place[0] == shard]
        start = spans[0][0]
        data = root.read_bytes(shard, start, max(offset + size for offset, size, _ in spans) - start)
        for offset, size, sha256 in spans:
            images.append(data[offset - start : offset - start + size])
            check_member(root, shard, offset, size, sha256, images[-1])
    return pa.array(images, IMAGE.type)
