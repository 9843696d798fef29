"""The kept rows of one unit with all that is known of them, and what a train shard says of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.packing.version import LOCATION, Version
from curation.recipe.config import PackConfig
from curation.selection.place_finder import PlaceFinder
from curation.selection.rows import append_columns
from curation.shards import BLOCK
from curation.storage import Root
from curation.tables import DOWNLOADS, SAMPLES

PACKED_BYTES = "packed_bytes"
"""The column beside those of `Version.rows`: bytes that a sample takes in a shard."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The rows of `unit` that a selection keeps: their uids, and their places where `stored` are the uids of a table.

    `places` are None for all rows.
    """

    unit: str
    uids: pa.ChunkedArray
    stored: bytes
    places: pa.Array | None


def read_kept(root: Root, selection_file: str) -> Kept:
    """What one file of the selection keeps."""
    rows, stored = root.read_keyed(selection_file, ["kept"], ())
    is_all = bool(pc.all(rows["kept"]).as_py())
    places = None if is_all else pc.indices_nonzero(rows["kept"])
    uids = rows["uid"] if places is None else rows["uid"].take(places)
    return Kept(unit=Path(selection_file).stem, uids=uids, stored=stored, places=places)


def read_kept_rows(version: Version, kept: Kept) -> pa.Table:
    """The rows of `kept` in the columns of `version.rows` and PACKED_BYTES.

    The latter is 0 where shards are cut by the number of samples: nobody asks for it there.
    """
    # Samples and downloads have a row for each of the selection, scores one for each picture.
    finder = PlaceFinder(kept.uids, {kept.stored: kept.places})
    tables = dict.fromkeys((SAMPLES, DOWNLOADS, *version.scores))
    rows = append_columns(version.root, kept.unit, pa.table({"uid": kept.uids}), tables, finder)
    found = set(rows.column_names)
    for field in (field for field in version.rows if field.name not in found):
        # An earlier version wrote this unit, or its batch has fewer captions.
        rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    rows = rows.select(version.rows.names).cast(version.rows)
    return rows.append_column(PACKED_BYTES, _measure_rows(rows, version.pack))


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
