"""The report as one HTML page: funnel, sources, distributions of scores, pictures. Its policy forbids any request."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib import resources

from curation.manifest.manifest import Manifest
from curation.progress import bar
from curation.report import charts, pictures
from curation.report.funnel import FunnelRow, funnel

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SOURCES = """
    select source as "source", count(*) as samples, count(*) filter (where status = 'ok') as pictures,
        count(*) filter (where duplicate_of is not null) as duplicates, count(*) filter (where kept) as kept
    from manifest group by source order by source
"""


def render_page(manifest: Manifest) -> str:
    """The whole page, whose length grows with the number of rules and not with the rows."""
    rows = funnel(manifest)
    rules = {row.reason: row.detail for row in rows if row.stage == "pictures" and row.reason and row.count}
    counts = {row.reason or row.stage: row.count for row in rows if row.stage in ("pictures", "kept")}
    with bar(4 + len(rules), "report", "part") as progress:
        parts = []
        for part in _render_parts(manifest, rows, rules, counts):
            parts.append(part)
            progress.update()
    style = resources.files("curation.report").joinpath("style.css").read_text(encoding="utf-8")
    name = escape(manifest.root.base.rstrip("/").rsplit("/", 1)[-1])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{name}: curation report</title>'
        f"<style>{style}</style></head><body><h1>{name}</h1>{''.join(parts)}</body></html>\n"
    )


def _render_parts(
    manifest: Manifest, rows: list[FunnelRow], rules: dict[str, str], counts: dict[str, int]
) -> Iterator[str]:
    yield _render_section("Funnel", _render_funnel(rows))
    yield _render_section("Sources", _render_sources(manifest))
    yield _render_section("Scores", _render_scores(manifest))
    for reason, html in pictures.render_galleries(manifest, rules):
        yield _render_section(_title(reason, counts), html)
    yield _render_section("Downloads that failed", pictures.render_failures(manifest))


def _render_section(title: str, html: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{html}</section>" if html else ""


def _title(reason: str, counts: dict[str, int]) -> str:
    return f"{'Kept' if reason == 'kept' else f'Dropped by {reason}'}: {counts[reason]:,}"


def _render_funnel(rows: list[FunnelRow]) -> str:
    lines = []
    for row in rows:
        kind = "stage" if row.reason is None else "reason"
        name = escape(row.stage if row.reason is None else row.reason)
        detail = f" <code>{escape(row.detail)}</code>" if row.detail else ""
        bar = f'<div style="width:{100 * row.share:.3f}%"></div>' if row.count else ""
        lines.append(
            f'<tr class="{kind}"><td>{name}{detail}</td><td class="number">{row.count:,}</td>'
            f'<td class="number">{100 * row.share:.2f} %</td>'
            f'<td class="bar">{bar}</td></tr>'
        )
    head = '<tr><th></th><th class="number">rows</th><th class="number">of all</th><th></th></tr>'
    return f'<table class="funnel">{head}{"".join(lines)}</table>'


def _render_sources(manifest: Manifest) -> str:
    relation = manifest.query(_SOURCES)
    names, rows = list(relation.columns), relation.fetchall()
    head = "".join(f'<th class="{"number" if i else ""}">{name}</th>' for i, name in enumerate(names))
    body = ""
    for source, *counts in rows:
        share = f"{100 * counts[-1] / counts[0]:.2f} %" if counts[0] else ""
        numbers = "".join(f'<td class="number">{count:,}</td>' for count in counts)
        body += f'<tr><td>{escape(source or "")}</td>{numbers}<td class="number">{share}</td></tr>'
    return f'<table>{"<tr>" + head}<th class="number">kept of samples</th></tr>{body}</table>' if rows else ""


def _render_scores(manifest: Manifest) -> str:
    distributions = list(charts.distributions(manifest))
    if not distributions:
        return ""
    figures = "".join(
        f"<figure><figcaption>{escape(chart.column)}"
        f"{f' <small>{chart.num_unknown:,} unknown</small>' if chart.num_unknown else ''}</figcaption>"
        f"{charts.render_svg(chart)}</figure>"
        for chart in distributions
    )
    legend = '<p class="legend"><span class="all"></span> all pictures <span class="kept"></span> kept</p>'
    note = "<p><small>The bins at both ends hold what lies beyond the 0.5 % and 99.5 % quantiles.</small></p>"
    return f'{legend}<div class="charts">{figures}</div>{note}'
