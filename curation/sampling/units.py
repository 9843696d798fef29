"""Copy some rows of one unit, with their pictures, vectors and scores, into another root."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.npy import parse_array
from curation.schema import Status
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
REFUSED_ELSEWHERE = "its URL refused in another root"
"""The detail of a row whose picture is not taken over."""


def copy_configs(root: Root, target: Root) -> None:
    """Copy what the stages recorded of their settings, without which they would take the copies for older ones."""
    folders = [DOWNLOADS, *map(metadata_folder, embedding_tables(root)), *score_tables(root)]
    for rel in (f"{folder}/{CONFIG}" for folder in folders):
        if root.exists(rel) and not target.exists(rel):
            target.publish(rel, root.read_whole(rel))


def copy_unit(
    root: Root,
    target: Root,
    unit: str,
    chooses: Chooses,
    *,
    shows: Chooses | None = None,
    name: str = "",
    without: Collection[str] = (),
) -> int:
    """Copy the chosen rows of `unit`, as far as that is not done; how many samples they are. Their samples go last.

    What an adopted folder held is copied whole, also where no row is chosen: a later adoption asks for it.
    Rows for which `shows` does not hold become refused ones, without a picture. In the target the unit is called
    `name`, or as before; tables `without` are left out. Raises UserError for what is damaged.
    """
    copy = UnitCopy(root=root, target=target, unit=unit, name=name or unit, chooses=chooses, shows=shows or chooses)
    rel = samples_file(copy.name)
    if target.exists(rel):
        return int(target.read_parquet(rel, ["uid"]).num_rows)
    if root.exists(listings_file(unit)) and not target.exists(listings_file(copy.name)):
        target.publish(listings_file(copy.name), root.read_whole(listings_file(unit)))
    samples = _choose(root.read_parquet(samples_file(unit)), chooses)
    if not len(samples):
        return 0
    for table in (table for table in embedding_tables(root) if table not in without):
        copy.copy_vectors(table)
    for table in (table for table in score_tables(root) if table not in without):
        copy.copy_scores(table)
    if root.exists(downloads_file(unit)):
        copy.copy_downloads()
    target.publish_parquet(rel, samples)
    return len(samples)


@dataclass(frozen=True, kw_only=True)
class UnitCopy:
    """Rows of `unit` of `root` on their way into `target`, where the unit is called `name`."""

    root: Root
    target: Root
    unit: str
    name: str
    chooses: Chooses
    shows: Chooses

    def _shows(self, uid: str) -> bool:
        return self.chooses(uid) and self.shows(uid)

    def copy_scores(self, table: str) -> None:
        """Copy the scores of the pictures."""
        rel = unit_file(table, self.unit)
        if self.root.exists(rel):
            self.target.publish_parquet(unit_file(table, self.name), _choose(self.root.read_parquet(rel), self._shows))

    def copy_vectors(self, table: str) -> None:
        """Copy the vectors of the pictures and of their captions."""
        if not self.root.exists(metadata_file(self.unit, table)):
            return
        rows = self.root.read_parquet(metadata_file(self.unit, table))
        taken = np.array([self._shows(uid) for uid in rows["uid"].to_pylist()], bool)
        for file in (vectors_file, texts_file):
            if self.root.exists(file(self.unit, table)):
                sink = io.BytesIO()
                np.save(sink, parse_array(self.root.read_whole(file(self.unit, table)))[taken])
                self.target.publish(file(self.name, table), sink.getvalue())
        self.target.publish_parquet(metadata_file(self.name, table), _choose(rows, self._shows))

    def copy_downloads(self) -> None:
        """Copy pictures into raw shards of the new root; those of adopted folders stay where they lie."""
        rows = _choose(self.root.read_parquet(downloads_file(self.unit)), self.chooses)
        rows = _refuse(rows, self.shows)
        sums = dict(zip(rows["uid"].to_pylist(), rows["stored_sha256"].to_pylist(), strict=True))
        shards = sorted({shard for shard in rows["shard"].to_pylist() if shard and shard.startswith(f"{RAW}/")})
        named = partial(raw_shard, self.name)
        places = {shard: copy_shard(self.root, shard, self.target, self._shows, named, sums) for shard in shards}
        self.target.publish_parquet(downloads_file(self.name), move_pictures(rows, places))


def _choose(rows: pa.Table, chooses: Chooses) -> pa.Table:
    return rows.filter(pa.array(map(chooses, rows["uid"].to_pylist()), pa.bool_())).combine_chunks()


def _refuse(rows: pa.Table, shows: Chooses) -> pa.Table:
    """`rows` of downloads, in which pictures that are not shown did not come."""
    refused = pa.array([not shows(uid) for uid in rows["uid"].to_pylist()], pa.bool_())
    refused = pc.and_(refused, pc.equal(rows["status"].combine_chunks(), Status.OK.value))
    if not pc.any(refused).as_py():
        return rows
    texts = {"status": Status.OPTED_OUT.value, "detail": REFUSED_ELSEWHERE}
    for number, field in enumerate(rows.schema):
        if field.name not in ("uid", "fetch_round"):
            value = pa.scalar(texts.get(field.name), field.type)
            rows = rows.set_column(number, field, pc.if_else(refused, value, rows[field.name].combine_chunks()))
    return rows
