"""The kept rows of one unit with all that is known of them, and what a train shard says of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.packing.version import LOCATION, Version
from curation.recipe.config import PackConfig
from curation.shards import BLOCK
from curation.tables import unit_file

PACKED_BYTES = "packed_bytes"
"""The column beside those of `Version.rows`: bytes that a sample takes in a shard."""


def read_kept_rows(version: Version, selection_file: str) -> pa.Table:
    """The rows of one file of the selection that are kept, in the columns of `version.rows` and PACKED_BYTES.

    The latter is 0 where shards are cut by the number of samples: nobody asks for it there.
    """
    unit = Path(selection_file).stem
    chosen = version.root.read_parquet(selection_file)
    rows = pa.table({"uid": chosen["uid"].filter(chosen["kept"])})
    for table in ("samples", "downloads", *version.scores):
        rows = _append_columns(rows, version.root.read_parquet(unit_file(table, unit)), version.rows)
    lacking = [field for field in version.rows if field.name not in rows.column_names]
    for field in lacking:  # an earlier version wrote this unit, or its batch has fewer captions
        rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    rows = rows.select(version.rows.names).cast(version.rows)
    return rows.append_column(PACKED_BYTES, _measure_rows(rows, version.pack))


def _append_columns(rows: pa.Table, known: pa.Table, wanted: pa.Schema) -> pa.Table:
    """`rows` with the columns of `known` that are wanted and that they have not yet; null where it lacks their uid."""
    taken = [name for name in known.column_names if name in wanted.names and name not in rows.column_names]
    places = pc.index_in(rows["uid"], known["uid"].combine_chunks())
    found = known.select(taken).take(places)
    for name in taken:
        rows = rows.append_column(name, found[name])
    return rows


def _measure_rows(rows: pa.Table, pack: PackConfig) -> pa.Array:
    if pack.num_bytes_per_shard is None:
        return pa.array(np.zeros(len(rows), np.int64))
    return pa.array([_count_packed_bytes(row, pack) for row in rows.to_pylist()], pa.int64())


def build_record(row: Mapping[str, Any], pack: PackConfig) -> dict[str, Any]:
    """The columns of the index that say nothing of places, from a row with those of `Version.rows`."""
    renamed = {name: value for name, value in row.items() if name not in (*LOCATION, PACKED_BYTES)}
    renamed |= {"sha256": row["stored_sha256"], "fetched_sha256": row["sha256"]}
    if set(pack.captions) == {"caption"}:
        return renamed
    return renamed | {"original_caption": row["caption"], "caption": choose_caption(row, pack)}


def choose_caption(row: Mapping[str, Any], pack: PackConfig) -> str | None:
    """The text of the column that is drawn by weight, from the seed and the uid; of the next one that has any."""
    digest = hashlib.md5(f"{pack.seed}:caption:{row['uid']}".encode(), usedforsecurity=False).digest()
    drawn = int.from_bytes(digest[:7], "big") / 2**56 * sum(pack.captions.values())
    names = sorted(pack.captions)
    ends = accumulate(pack.captions[name] for name in names)
    first = next((k for k, end in enumerate(ends) if drawn < end), len(names) - 1)
    return next((text for name in names[first:] + names[:first] if (text := row.get(name))), None)


def encode_texts(record: Mapping[str, Any]) -> dict[str, bytes]:
    """The members beside the picture."""
    described = {k: v for k, v in record.items() if v is not None}
    return {
        "txt": (record["caption"] or "").encode(),
        "json": json.dumps(described, sort_keys=True, ensure_ascii=False).encode(),
    }


def _count_packed_bytes(row: Mapping[str, Any], pack: PackConfig) -> int:
    """What one sample takes in a shard, headers and padding included."""
    sizes = [int(row["size"]), *map(len, encode_texts(build_record(row, pack)).values())]
    return sum(BLOCK + size + -size % BLOCK for size in sizes)
