"""The funnel: how many rows reach each stage, and how many the stage removes for which reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from curation.manifest.manifest import Manifest
from curation.plan import read_plans

DOWNLOAD = "download:"


@dataclass(frozen=True)
class FunnelRow:
    """`count` rows and their `share` of all metadata rows.

    Without `reason`: the rows that reach `stage` (metadata, samples, pictures, kept, packed). With a reason: the rows
    that are removed after the stage for it; `pending` are rows without a decision yet. `detail` explains a count: the
    SQL of a rule, or what became of packed rows that the selection no longer keeps.
    """

    stage: str
    reason: str | None
    count: int
    share: float
    detail: str = ""


def funnel(manifest: Manifest) -> list[FunnelRow]:
    """Rows of the funnel from metadata to train shards; stages that have not begun are left out.

    Counts add up: the rows of a stage are the rows of the next stage and those of all its reasons.
    """
    counts = list(_count_stages(manifest))
    total = counts[0][2]
    return [FunnelRow(s, reason, count, count / total if total else 0.0, detail) for s, reason, count, detail in counts]


def _count_stages(manifest: Manifest) -> Iterator[tuple[str, str | None, int, str]]:
    totals = [plan["totals"] for plan in read_plans(manifest.root)]
    # A damaged root may lack files of samples that its plans name, and their rows are accounted for still.
    planned = sum(total["samples"] for total in totals)
    num_samples = max(planned, _query_int(manifest, "select count(*) from samples"))
    rejected = _sum_counts(reasons for t in totals for reasons in t.items() if reasons[0] != "samples")
    yield "metadata", None, num_samples + sum(rejected.values()), ""
    yield from (("metadata", reason, count, "") for reason, count in _sort_by_count(rejected))
    yield "samples", None, num_samples, ""
    statuses = _count_statuses(manifest, num_samples)
    if not statuses:
        return
    num_pictures = statuses.pop("ok", 0)
    statuses |= _pending(num_samples - num_pictures - sum(statuses.values()))
    yield from (("samples", reason, count, "") for reason, count in _sort_by_count(statuses))
    yield "pictures", None, num_pictures, _describe_captions(manifest)
    current = manifest.root.current("selection")
    if current is None:
        return
    yield from _count_selection(manifest, num_pictures, current)


def _count_statuses(manifest: Manifest, num_samples: int) -> dict[str, int]:
    counts = _query_counts(manifest, "select status, count(*) from downloads group by status")
    if sum(counts.values()) <= num_samples:
        return counts
    return _query_counts(
        manifest, "select status, count(distinct uid) from downloads semi join samples using (uid) group by status"
    )


def _describe_captions(manifest: Manifest) -> str:
    """How many pictures have no caption; empty when all have one."""
    count = _query_int(
        manifest,
        "select count(*) from downloads d join samples s using (uid) "
        "where d.status = 'ok' and coalesce(s.caption, '') = ''",
    )
    return f"{count:,} without a caption" if count else ""


def _count_selection(
    manifest: Manifest, num_pictures: int, current: dict[str, Any]
) -> Iterator[tuple[str, str | None, int, str]]:
    config, reasons = current["config"], _count_reasons(manifest, num_pictures)
    num_kept = reasons.pop("", 0)
    for rule in config.get("order", sorted(reasons)):
        yield "pictures", rule, reasons.get(rule, 0), config.get("rules", {}).get(rule, "")
    unknown = sorted(set(reasons) - set(config.get("order", reasons)))
    yield from (("pictures", reason, reasons[reason], "") for reason in unknown)
    pending = _pending(num_pictures - num_kept - sum(reasons.values()))
    yield from (("pictures", reason, count, "") for reason, count in pending.items())
    yield "kept", None, num_kept, ""
    index = manifest.root.current("train_index")
    if index is not None:
        is_of_this = index["inputs"].get("selection") == current["fingerprint"]
        num_packed, num_others = _count_packed(manifest, num_kept, is_of_this)
        yield from (("kept", reason, count, "") for reason, count in _pending(num_kept - num_packed).items())
        note = f"and {num_others:,} that are no longer kept: run `curate pack`" if num_others else ""
        yield "packed", None, num_packed, note


def _count_reasons(manifest: Manifest, num_pictures: int) -> dict[str, int]:
    """Rows that came by the reason of the current selection, kept ones under the empty text."""
    decided = _query_counts(manifest, "select coalesce(reason, ''), count(*) from selection group by 1")
    counts = {reason: count for reason, count in decided.items() if not reason.startswith(DOWNLOAD)}
    if sum(counts.values()) <= num_pictures:
        return counts
    # The selection is of another state of the downloads; rows that it knows and that are gone must not be counted.
    return _query_counts(
        manifest,
        "select coalesce(reason, ''), count(distinct uid) from selection semi join "
        "(select uid from downloads semi join samples using (uid) where status = 'ok') using (uid) "
        f"where not starts_with(coalesce(reason, ''), '{DOWNLOAD}') group by 1",
    )


def _count_packed(manifest: Manifest, num_kept: int, is_of_this: bool) -> tuple[int, int]:
    """Packed rows that are kept, and packed rows that are not. `is_of_this`: they were packed from this selection."""
    num_packed = _query_int(manifest, "select count(*) from train_index")
    if is_of_this and num_packed <= num_kept:
        return num_packed, 0
    kept = _query_int(
        manifest,
        "select count(distinct uid) from train_index semi join (select uid from selection where kept) using (uid)",
    )
    return min(kept, num_kept), num_packed - kept


def _query_int(manifest: Manifest, sql: str) -> int:
    return int(manifest.query(sql).fetchall()[0][0])


def _query_counts(manifest: Manifest, sql: str) -> dict[str, int]:
    return _sum_counts(manifest.query(sql).fetchall())


def _sum_counts(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key, count in pairs:
        counts[key] = counts.get(key, 0) + int(count)
    return {key: count for key, count in counts.items() if count}


def _pending(count: int) -> dict[str, int]:
    return {"pending": count} if count > 0 else {}


def _sort_by_count(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def render_funnel(rows: list[FunnelRow]) -> str:
    """The funnel as aligned lines: stages at the left, and below each stage its reasons with a minus."""
    cells = [
        (
            row.stage if row.reason is None else f"  - {row.reason}",
            f"{row.count:,}",
            f"{100 * row.share:.2f} %",
            row.detail,
        )
        for row in rows
    ]
    widths = [max(len(cell[i]) for cell in cells) for i in range(3)]
    lines = (f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in cells)
    return "\n".join(lines) + "\n"
