"""The scores of one unit, as every engine computes them: its rows are read in batches, each once for all filters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from curation.schema import DOWNLOADS, SAMPLES, Status, is_further_caption
from curation.selection.place_finder import PlaceFinder, take_rows
from curation.shards import check_member
from curation.storage import Root
from curation.sums.ledger import Sum
from curation.sums.recorder import TaskRecorder
from curation.tables import downloads_file, read_keyed_samples, scores_table, unit_file
from filters._gray import MAX_BATCH
from filters.base import IMAGE, Filter
from jobs.scoring.vector_columns import list_columns, read_vectors

ROWS_PER_BATCH = {True: MAX_BATCH // 4, False: 16_384}
"""Rows of one batch, with pictures (their bytes are held) and without."""
PLACE = ("shard", "offset", "size", "stored_sha256")
"""Columns of where a picture lies."""


def score_units(
    root: Root, filters: Mapping[str, Filter], units: Sequence[tuple[str, Sequence[str]]]
) -> dict[str, Sum]:
    """Score each of `units` by those of `filters` that stand beside it; the sums of what was published."""
    recorder = TaskRecorder()
    told = root.recording(recorder)
    for unit, names in units:
        score_unit(told, unit, {name: filters[name] for name in names})
    return recorder.published


def score_unit(root: Root, unit: str, wanted: Mapping[str, Filter]) -> int:
    """Compute and publish the scores of `wanted` for one unit; returns the number of rows scored."""
    columns = {name: list_columns(item) for name, item in wanted.items()}
    reads = {column for listed in columns.values() for column in listed}
    parts: dict[str, list[pa.RecordBatch]] = {name: [] for name in wanted}
    uids: list[pa.Array] = []
    for batch in read_batches(root, unit, reads):
        uids.append(batch["uid"])
        for name, item in wanted.items():
            parts[name].append(item.apply(batch.select(columns[name]).rename_columns(list(item.reads))))
    scored = pa.chunked_array(uids, pa.string())
    is_sorted = _are_sorted(scored)
    for name, item in wanted.items():
        scores = pa.Table.from_batches(parts[name], schema=item.writes)
        table = scores.add_column(0, SAMPLES.field("uid"), scored)
        table = (table if is_sorted else table.sort_by("uid")).combine_chunks()  # pages end where the rows say
        root.publish_parquet(unit_file(scores_table(name), unit), table)
    return len(scored)


def _are_sorted(uids: pa.ChunkedArray) -> bool:
    return len(uids) < 2 or bool(pc.all(pc.less(uids[:-1], uids[1:])).as_py())


def read_batches(root: Root, unit: str, reads: set[str]) -> Iterator[pa.RecordBatch]:
    """The unit's rows with status ok: `uid` and the columns `reads`.

    With pictures or vectors they are in the order of the pictures in their shard, otherwise in that of downloads.
    Columns of vectors are named as by `jobs.scoring.vector_columns.list_columns`.
    """
    vectors = sorted(name for name in reads if "@" in name)
    with_images = IMAGE.name in reads
    rows = _read_rows(root, unit, reads, with_places=with_images or bool(vectors))
    for column in vectors:
        rows = rows.append_column(column, read_vectors(root, unit, column, rows["uid"].to_pylist()))
    for batch in rows.combine_chunks().to_batches(ROWS_PER_BATCH[with_images]):
        images = _read_images(root, batch) if with_images else None
        yield batch if images is None else batch.append_column(IMAGE, images)


def _read_rows(root: Root, unit: str, reads: set[str], *, with_places: bool) -> pa.Table:
    """The rows whose picture came: `uid`, those of `reads` that are columns of a table and, if wanted, their places.

    With places the rows are in the order of these.
    """
    wanted = reads | ({*PLACE} if with_places else set())
    from_downloads = [field.name for field in DOWNLOADS if field.name in wanted | {"uid", "status"}]
    rows, stored = root.read_keyed(downloads_file(unit), from_downloads, ())
    from_samples = [field.name for field in SAMPLES if field.name in reads - {"uid"}]
    from_samples += sorted(filter(is_further_caption, reads))
    if from_samples:
        finder = PlaceFinder(rows["uid"], {stored: None})
        samples, key = read_keyed_samples(root, unit, from_samples, finder.places)
        places = finder.find(key, samples)
        found = samples.select(from_samples)
        found = found if places is None else take_rows(found, places)
        rows = pa.table([*rows.columns, *found.columns], [*rows.column_names, *from_samples])
    rows = rows.filter(pc.equal(rows["status"], Status.OK.value))
    if not with_places:
        return rows
    return rows.sort_by([("shard", "ascending"), ("offset", "ascending"), ("uid", "ascending")])


def _read_images(root: Root, batch: pa.RecordBatch) -> pa.Array:
    """Stored bytes of each row, by one range read for each shard of the batch. Raises UserError for damaged ones."""
    images: list[bytes] = []
    places = list(zip(*(batch[name].to_pylist() for name in PLACE), strict=True))
    for shard in dict.fromkeys(place[0] for place in places):
        spans = [place[1:] for place in places if place[0] == shard]
        start = spans[0][0]
        data = root.read_bytes(shard, start, max(offset + size for offset, size, _ in spans) - start)
        for offset, size, sha256 in spans:
            images.append(data[offset - start : offset - start + size])
            check_member(root, shard, offset, size, sha256, images[-1])
    return pa.array(images, IMAGE.type)
