"""Write one unit of one root into the new root: the rows that are taken, and a reject for each other one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.download.tombstones import Tombstones, append_forgotten, hide_name
from curation.merging.rows import Fate, Source
from curation.sampling.units import copy_unit
from curation.schema import LISTINGS, REJECTS, RejectReason
from curation.storage import Root
from curation.tables import listings_file, rejects_file, samples_file

FORGOTTEN = RejectReason.FORGOTTEN.value


def merge_unit(
    source: Source,
    target: Root,
    fates: np.ndarray,
    refused_urls: pa.Array,
    tombstones: Tombstones,
    without: Collection[str] = (),
) -> None:
    """Publish the unit `source` in `target`, unless it is done. `fates` has what becomes of each of its samples.

    A row whose URL is among `refused_urls` is a refused one, whatever came. Raises UserError for a damaged file.
    """
    if target.exists(samples_file(source.name)):
        return
    rows = _read_samples(source)
    _write_rejects(source, target, rows, fates, tombstones)
    _write_listing(source, target, rows, fates)
    if (fates == Fate.TAKEN).any():
        uids = frozenset(rows["uid"].filter(pa.array(fates == Fate.TAKEN)).to_pylist())
        refused = frozenset(rows["uid"].filter(pc.is_in(rows["url"], refused_urls)).to_pylist())
        copy_unit(
            source.root,
            target,
            source.unit,
            uids.__contains__,
            shows=lambda uid: uid not in refused,
            name=source.name,
            without=without,
        )


def _read_samples(source: Source) -> pa.Table:
    names = ["uid", "url", "source", "source_id"]
    if not source.root.exists(samples_file(source.unit)):  # each of its rows is a reject
        return pa.table({name: pa.array([], pa.string()) for name in names})
    return source.root.read_parquet(samples_file(source.unit), names)


def _write_rejects(source: Source, target: Root, rows: pa.Table, fates: np.ndarray, tombstones: Tombstones) -> None:
    """The rejects that there were, a repeated one for each row that another root's stands for, and forgotten ones."""
    rel = rejects_file(source.unit)
    known = source.root.read_parquet(rel) if source.root.exists(rel) else REJECTS.empty_table()
    is_forgotten = [
        reason == FORGOTTEN or tombstones.name_uid(uid)
        for uid, reason in zip(known["uid"].to_pylist(), known["reason"].to_pylist(), strict=True)
    ]
    sources = known["source"].filter(pa.array(is_forgotten, pa.bool_())).to_pylist()
    sources += rows["source"].filter(pa.array(fates == Fate.FORGOTTEN)).to_pylist()
    known = known.filter(pc.invert(pa.array(is_forgotten, pa.bool_())))
    repeated = _make_repeated(rows.filter(pa.array((fates != Fate.TAKEN) & (fates != Fate.FORGOTTEN))))
    rejects = append_forgotten(pa.concat_tables([known, repeated]), (one or "" for one in sources))
    if len(rejects):
        target.publish_parquet(rejects_file(source.name), rejects.combine_chunks())


def _make_repeated(rows: pa.Table) -> pa.Table:
    """Rejects of samples that another root's stand for; a sample does not say of which file and row it was."""
    reasons = pa.array([RejectReason.REPEATED.value] * len(rows), pa.string())
    columns = {name: pa.nulls(len(rows), REJECTS.field(name).type) for name in REJECTS.names}
    return pa.table({**columns, "source": rows["source"], "uid": rows["uid"], "reason": reasons}, schema=REJECTS)


def _write_listing(source: Source, target: Root, rows: pa.Table, fates: np.ndarray) -> None:
    """Hide the names of files of an adopted folder whose every row is forgotten."""
    rel = listings_file(source.unit)
    if not source.root.exists(rel):
        return
    listing = source.root.read_parquet(rel)
    gone = _list_names(rows, fates == Fate.FORGOTTEN) - _list_names(rows, fates != Fate.FORGOTTEN)
    files = [hide_name(file) if file in gone else file for file in listing["file"].to_pylist()]
    fingerprints = listing["fingerprint"].combine_chunks()
    target.publish_parquet(listings_file(source.name), pa.table([pa.array(files), fingerprints], schema=LISTINGS))


def _list_names(rows: pa.Table, mask: np.ndarray) -> set[str]:
    names: Sequence[str | None] = rows["source_id"].filter(pa.array(mask)).to_pylist()
    return {name for name in names if name}
