"""Publishing one unit of downloads: its pictures as a tar under the name of its content, then its row file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from curation.download import rounds
from curation.download.journal import Journal
from curation.schema import DOWNLOADS, DownloadRow, SampleRow, Status
from curation.scratch import name_scratch
from curation.shards import ShardWriter, picture_extension
from curation.storage import Root
from curation.tables import downloads_file, raw_shard

_json = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


def publish_unit(
    root: Root,
    unit: str,
    samples: Sequence[SampleRow],
    journal: Journal,
    kept: Sequence[DownloadRow] = (),
    fetch_round: int | None = 0,
) -> None:
    """Write the pictures of `samples` into a tar that is named by its content, then the row file of `unit`.

    `kept` are the rows of earlier rounds that this round does not try again. `fetch_round` is None of pictures that
    were not fetched but adopted.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix=name_scratch(root, "raw"), dir=root.scratch()) as folder:
        path = Path(folder, "shard.tar")
        with ShardWriter(path) as writer:
            for sample in sorted(samples, key=lambda sample: sample["uid"]):
                rows.append(_write_sample(writer, sample, journal))
        shard = raw_shard(unit, writer.sha256)
        if writer.members:
            root.publish(shard, path)
    for row in rows:
        row["shard"], row["fetch_round"] = shard if row["status"] == Status.OK else None, fetch_round
    if kept and writer.members:
        rounds.remove_derived(root, unit)
    root.publish_parquet(downloads_file(unit), _to_table(rounds.merge_rows(kept, rows)))


def _to_table(rows: Sequence[DownloadRow]) -> pa.Table:
    """The same table as `pa.Table.from_pylist`, in half the time."""
    columns = [dict(row) for row in rows]
    return pa.table([[row[name] for row in columns] for name in DOWNLOADS.names], schema=DOWNLOADS)


def _write_sample(writer: ShardWriter, sample: SampleRow, journal: Journal) -> DownloadRow:
    """The row of `sample`, with the place of its picture where it has one, which is written into the shard."""
    row = journal.rows[sample["uid"]].copy()
    if row["status"] != Status.OK:
        return row
    data = journal.read_picture(sample["uid"])
    described = {  # sorted by name
        "caption": sample["caption"],
        "height": row["stored_height"],
        "original_height": row["height"],
        "original_width": row["width"],
        "sha256": row["sha256"],
        "source": sample["source"],
        "uid": sample["uid"],
        "url": sample["url"],
        "width": row["stored_width"],
    }
    files = {
        picture_extension(data): data,
        "txt": (sample["caption"] or "").encode(),
        "json": _json(described).encode(),
    }
    member = next(iter(writer.add(sample["uid"], files).values()))
    row["offset"], row["size"] = member.offset, member.size
    return row
