"""A few kept pictures, and a few that each rule removed."""

from __future__ import annotations

from html import escape

from curation.report.facts import Facts
from curation.report.pictures import KEPT, render_galleries
from curation.report.section import Section
from curation.report.tables import say


def render(facts: Facts) -> str:
    """A gallery for the kept pictures and one for each rule, in the order of the rules."""
    if facts.selected is None:
        return say("Nothing has been decided yet: run `curate select`.")
    rules = {row.reason: row.detail for row in facts.funnel if row.stage == "pictures" and row.reason and row.count}
    counts = {row.reason or row.stage: row.count for row in facts.funnel if row.stage in ("pictures", KEPT)}
    html = "".join(
        f"<h3>{'Kept' if reason == KEPT else f'Dropped by {escape(reason)}'}: {counts[reason]:,}</h3>{gallery}"
        for reason, gallery in render_galleries(facts.manifest, rules, facts.budget)
    )
    return html or say("The selection has decided on no picture.")


SECTION = Section(title="Pictures", place=80, render=render)
