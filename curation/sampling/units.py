"""Copy some rows of one unit, with their pictures, vectors and scores, into another root."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa

from curation.npy import parse_array
from curation.shards import copy_shard
from curation.storage import CONFIG, Root
from curation.tables import (
    DOWNLOADS,
    RAW,
    downloads_file,
    embedding_tables,
    listings_file,
    metadata_file,
    metadata_folder,
    move_pictures,
    raw_shard,
    samples_file,
    score_tables,
    texts_file,
    unit_file,
    vectors_file,
)

Chooses = Callable[[str], bool]


def copy_configs(root: Root, target: Root) -> None:
    """Copy what the stages recorded of their settings, without which they would take the copies for older ones."""
    folders = [DOWNLOADS, *map(metadata_folder, embedding_tables(root)), *score_tables(root)]
    for rel in (f"{folder}/{CONFIG}" for folder in folders):
        if root.exists(rel) and not target.exists(rel):
            target.publish(rel, root.read_whole(rel))


def copy_unit(root: Root, target: Root, unit: str, chooses: Chooses) -> int:
    """Copy the chosen rows of `unit`, as far as that is not done; how many samples they are. Their samples go last."""
    rel = samples_file(unit)
    if target.exists(rel):
        return int(target.read_parquet(rel, ["uid"]).num_rows)
    samples = _choose(root.read_parquet(rel), chooses)
    if not len(samples):
        return 0
    for table in embedding_tables(root):
        _copy_vectors(root, target, unit, table, chooses)
    for name in (unit_file(table, unit) for table in score_tables(root)):
        if root.exists(name):
            target.publish_parquet(name, _choose(root.read_parquet(name), chooses))
    if root.exists(listings_file(unit)):
        target.publish(listings_file(unit), root.read_whole(listings_file(unit)))
    if root.exists(downloads_file(unit)):
        _copy_downloads(root, target, unit, chooses)
    target.publish_parquet(rel, samples)
    return len(samples)


def _choose(rows: pa.Table, chooses: Chooses) -> pa.Table:
    return rows.filter(pa.array(map(chooses, rows["uid"].to_pylist()), pa.bool_())).combine_chunks()


def _copy_vectors(root: Root, target: Root, unit: str, table: str, chooses: Chooses) -> None:
    rel = metadata_file(unit, table)
    if not root.exists(rel):
        return
    rows = root.read_parquet(rel)
    taken = np.array([chooses(uid) for uid in rows["uid"].to_pylist()], bool)
    for array in (vectors_file(unit, table), texts_file(unit, table)):
        if root.exists(array):
            sink = io.BytesIO()
            np.save(sink, parse_array(root.read_whole(array))[taken])
            target.publish(array, sink.getvalue())
    target.publish_parquet(rel, _choose(rows, chooses))


def _copy_downloads(root: Root, target: Root, unit: str, chooses: Chooses) -> None:
    """Pictures into raw shards of the new root; those of adopted folders stay where they lie."""
    rows = _choose(root.read_parquet(downloads_file(unit)), chooses)
    shards = sorted({shard for shard in rows["shard"].to_pylist() if shard and shard.startswith(f"{RAW}/")})
    places = {shard: copy_shard(root, shard, target, chooses, partial(raw_shard, unit)) for shard in shards}
    target.publish_parquet(downloads_file(unit), move_pictures(rows, places))
