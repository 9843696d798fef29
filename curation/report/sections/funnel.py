"""How many rows reach each stage, and why the others do not."""

from __future__ import annotations

from html import escape

from curation.report.facts import Facts
from curation.report.funnel import FunnelRow
from curation.report.section import Section


def render(facts: Facts) -> str:
    """Each stage with a bar for its share of all rows, and below it the reasons for which rows are removed."""
    head = '<tr><th></th><th class="number">rows</th><th class="number">of all</th><th></th></tr>'
    return f'<table class="funnel">{head}{"".join(map(_render_row, facts.funnel))}</table>'


def _render_row(row: FunnelRow) -> str:
    kind = "stage" if row.reason is None else "reason"
    name = escape(row.stage if row.reason is None else row.reason)
    detail = f" <code>{escape(row.detail)}</code>" if row.detail else ""
    bar = f'<div style="width:{100 * row.share:.3f}%"></div>' if row.count else ""
    return (
        f'<tr class="{kind}"><td>{name}{detail}</td><td class="number">{row.count:,}</td>'
        f'<td class="number">{100 * row.share:.2f} %</td><td class="bar">{bar}</td></tr>'
    )


SECTION = Section(title="Funnel", place=10, render=render)
