"""Charts as inline SVG: the distribution of a score over all pictures, and over the kept pictures in front of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import pyarrow as pa

from curation.manifest.manifest import Manifest
from curation.manifest.quoting import quote_identifier

NUM_BINS = 32
NUM_CATEGORIES = 10
WIDTH, HEIGHT = 300, 110
_PLUMBING = {"offset", "size", "train_offset", "train_size", "stored_width", "stored_height", "num_bytes"}


@dataclass(frozen=True)
class Distribution:
    """Counts of one column: `labels` of the bins or categories, rows in each, kept rows in each, unknown rows.

    `column` names several columns where they have the same counts, as a filter's copy of a score of the metadata has.
    `ends` are the least and the greatest value of bins, None for categories.
    """

    column: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    kept: tuple[int, ...]
    num_unknown: int
    ends: tuple[str, str] | None = None


def distributions(manifest: Manifest) -> Iterator[Distribution]:
    """The distribution of each score of the manifest over the fetched pictures, unless all have the same value."""
    by_counts: dict[Distribution, list[str]] = {}
    for chart in _list_distributions(manifest):
        by_counts.setdefault(replace(chart, column=""), []).append(chart.column)
    for chart, columns in by_counts.items():
        yield replace(chart, column=", ".join(columns))


def _list_distributions(manifest: Manifest) -> Iterator[Distribution]:
    schema = manifest.query("select * from manifest limit 0").to_arrow_table().schema
    for field in schema:
        plumbing = field.name in _PLUMBING or field.name.startswith("claimed_")
        chart = None if plumbing else _distribution(manifest, field)
        if chart is not None and len([count for count in chart.counts if count]) > 1:
            yield chart


def _distribution(manifest: Manifest, field: pa.Field) -> Distribution | None:
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
        return _bin_values(manifest, field)
    return _count_categories(manifest, field) if _is_category(field) else None


def _is_category(field: pa.Field) -> bool:
    return pa.types.is_boolean(field.type) and field.name != "kept" or field.name in ("language", "format", "concept")


def _bin_values(manifest: Manifest, field: pa.Field) -> Distribution | None:
    """Equal bins between the 0.5 % and 99.5 % quantiles; what lies outside is counted in the bins at the ends."""
    value = f"{quote_identifier(field.name)}::double"
    known = f"status = 'ok' and isfinite({value})"
    low, high = manifest.query(
        f"select approx_quantile({value}, 0.005), approx_quantile({value}, 0.995) from manifest where {known}"
    ).fetchall()[0]
    if low is None or low == high:
        return None
    num_bins, step = NUM_BINS, (high - low) / NUM_BINS
    if pa.types.is_integer(field.type):
        low, span = math.floor(low), math.ceil(high) - math.floor(low) + 1
        step = math.ceil(span / NUM_BINS)
        num_bins = math.ceil(span / step)
    bin_sql = f"least(greatest(floor(({value} - {low!r}) / {step!r}), 0), {num_bins - 1})::int"
    labels = [f"{low + i * step:.4g} to {low + (i + 1) * step:.4g}" for i in range(num_bins)]
    ends = (f"{low:.4g}", f"{low + num_bins * step:.4g}")
    return replace(_count_rows(manifest, field.name, bin_sql, known, dict(enumerate(labels))), ends=ends)


def _count_categories(manifest: Manifest, field: pa.Field) -> Distribution:
    name = quote_identifier(field.name)
    text, known = f"{name}::varchar", f"status = 'ok' and {name} is not null"
    top = manifest.query(
        f"select {text} as c from manifest where {known} group by c order by count(*) desc, c limit {NUM_CATEGORIES}"
    ).fetchall()
    return _count_rows(manifest, field.name, text, known, {row[0]: row[0] for row in top})


def _count_rows(manifest: Manifest, column: str, key: str, known: str, labels: Mapping[Any, str]) -> Distribution:
    counted = manifest.query(
        f"select {key} as k, count(*), count(*) filter (where kept) from manifest where {known} group by k"
    ).fetchall()
    rows = {k: (count, kept) for k, count, kept in counted}
    ok = int(manifest.query("select count(*) from manifest where status = 'ok'").fetchall()[0][0])
    counts = tuple(rows.get(k, (0, 0))[0] for k in labels)
    kept = tuple(rows.get(k, (0, 0))[1] for k in labels)
    return Distribution(column, tuple(labels.values()), counts, kept, ok - sum(count for count, _ in rows.values()))


def render_svg(chart: Distribution) -> str:
    """The distribution as bars, each with a tooltip, above the labels of the axis."""
    top, step = max(chart.counts), WIDTH / len(chart.counts)
    bars = []
    for i, (label, count, kept) in enumerate(zip(chart.labels, chart.counts, chart.kept, strict=True)):
        tip = f"<title>{escape(label)}: {count:,} pictures, {kept:,} kept</title>"
        x, width = i * step + 0.5, max(step - 1, 1)
        for name, value in (("all", count), ("kept", kept)):
            height = HEIGHT * value / top
            y = HEIGHT - height
            bars.append(f'<rect class="{name}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"/>')
        bars.append(f'<rect class="hit" x="{x:.2f}" y="0" width="{width:.2f}" height="{HEIGHT}">{tip}</rect>')
    alt = f"Distribution of {chart.column}: all pictures and the kept ones"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 16}" role="img" aria-label="{escape(alt)}">{"".join(bars)}'
        f'<line class="axis" x1="0" y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}"/>{_render_labels(chart, step)}</svg>'
    )


def _render_labels(chart: Distribution, step: float) -> str:
    """Both ends of a range, or the names of the categories, cut to the width of their bars."""
    y = HEIGHT + 12
    if chart.ends is not None:
        left = f'<text x="0" y="{y}">{escape(chart.ends[0])}</text>'
        return f'{left}<text x="{WIDTH}" y="{y}" text-anchor="end">{escape(chart.ends[1])}</text>'
    shown = (label if len(label) * 6 <= step else label[: max(1, int(step / 6) - 1)] + "…" for label in chart.labels)
    return "".join(
        f'<text x="{(i + 0.5) * step:.1f}" y="{y}" text-anchor="middle">{escape(label)}</text>'
        for i, label in enumerate(shown)
    )
