"""One unit of an ingest: its rejects and its samples, published, and what they count."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.download.tombstones import Tombstones, append_forgotten, find_forgotten
from curation.errors import UserError
from curation.ingest.engine import UnitCounts, UnitTarget
from curation.schema import REJECTS, RejectReason, count_captions, samples_schema
from curation.storage import Root
from curation.tables import rejects_file, samples_file

REASONS = (
    RejectReason.NO_URL,
    RejectReason.WHERE,
    RejectReason.REPEATED,
    RejectReason.NOT_TEXT,
    RejectReason.MALFORMED,
    RejectReason.FORGOTTEN,
)
"""Why ingest refuses a row; an adopted folder knows two more."""


def write_unit(target: UnitTarget, unit: int, table: pa.Table) -> UnitCounts:
    """Publish the rejects, then the samples of one unit; their counts, those of domains in `target.named` as JSON.

    `table` has the columns of samples, `reason`, `file` and `row`, in the order of SORTED_BY. What `target.tombstones`
    name is rejected whatever else is wrong with it, so that its uid is written nowhere.
    """
    name = f"{target.batch}-{unit:06d}"
    rows, sources = _take_forgotten(target.tombstones, table.combine_chunks())
    accepted = pc.is_null(rows["reason"])
    rejected = rows.filter(pc.invert(accepted)) if pc.any(pc.invert(accepted)).as_py() else rows.slice(0, 0)
    if rejected.num_rows or sources:
        rejects = rejected.select(REJECTS.names).cast(REJECTS)
        target.root.publish_parquet(rejects_file(name), append_forgotten(rejects, sources))
    samples = _publish_samples(target.root, name, rows.filter(accepted) if rejected.num_rows else rows)
    counts = Counter(_count_values(rejected["reason"])) + Counter({RejectReason.FORGOTTEN.value: len(sources)})
    described = _describe_domains(_count_values(samples["domain"]), target.named)
    return {"unit": unit, "samples": samples.num_rows, **described, **{r.value: counts[r.value] for r in REASONS}}


def _take_forgotten(tombstones: Tombstones, rows: pa.Table) -> tuple[pa.Table, list[str]]:
    """`rows` without those that were forgotten, and the source of each of the latter."""
    if not tombstones.rows:
        return rows, []
    forgotten = pa.array(find_forgotten(tombstones, rows, rows["reason"].to_pylist()), pa.bool_())
    sources: list[str] = rows["source"].filter(forgotten).to_pylist()
    return rows.filter(pc.invert(forgotten)), sources


def _publish_samples(root: Root, name: str, rows: pa.Table) -> pa.Table:
    schema = samples_schema(count_captions(rows.column_names))
    samples = rows.select(schema.names).cast(schema)
    if pc.count_distinct(samples["uid"]).as_py() != samples.num_rows:
        raise UserError(f"Unit {name} would hold a uid twice: nothing of this ingest counts; please report it.")
    if samples.num_rows:
        root.publish_parquet(samples_file(name), samples)
    return samples


def _count_values(column: pa.ChunkedArray) -> dict[str, int]:
    counts = pc.value_counts(column)
    return dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))


def _describe_domains(counts: dict[str, int], named: frozenset[str]) -> dict[str, Any]:
    hosts = {domain: count for domain, count in counts.items() if domain in named}
    return {"num_others": len(counts) - len(hosts), "hosts": json.dumps(hosts)}
