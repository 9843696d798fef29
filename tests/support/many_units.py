"""A root of many small units, for look-ups of uids."""

from __future__ import annotations

import pyarrow as pa

from curation import schema
from curation.storage import Root
from tests.support import small_root


def many_units(root: Root, units: range) -> dict[str, str]:
    """Samples and downloads of twelve rows a unit; uid → unit."""
    found = {}
    for number in units:
        unit = f"{number % 7:08x}-{number:06d}"
        rows = [{**small_root.sample(12 * number + k)} for k in range(12)]
        for row in rows:
            row["uid"] = schema.uid(row["url"], f"{number}")
            found[row["uid"]] = unit
        rows.sort(key=lambda row: row["uid"])
        root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
        lost = [{**dict.fromkeys(schema.DOWNLOADS.names), "uid": r["uid"], "status": f"http_{number}"} for r in rows]
        root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(lost, schema.DOWNLOADS))
        root.publish_json(f"plans/{number % 7:08x}.json", {"number": number % 7, "inputs": []})
    return found
