"""Raw shards by their sizes alone, for a quick look: no picture is read."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from curation.remedies import remedy
from curation.storage import Root
from curation.tables import downloads_file


def find_missing_shard(root: Root, unit: str) -> str | None:
    """The first shard of `unit` that is missing, or shorter than its last picture's end; no picture is read."""
    rows = root.read_parquet(downloads_file(unit), ["shard", "offset", "size"])
    rows = rows.filter(pc.is_valid(rows["shard"]))
    ends = pa.table({"shard": rows["shard"], "end": pc.add(rows["offset"], rows["size"])})
    for row in ends.group_by("shard").aggregate([("end", "max")]).to_pylist():
        shard, end = row["shard"], row["end_max"]
        if not root.exists(shard):
            return f"{shard} is missing: {remedy(shard, is_there=False)}."
        if root.size(shard) < end:
            return f"{shard} has {root.size(shard)} bytes, and a picture ends at {end}: {remedy(shard)}."
    return None
