"""What the current selection keeps that the one before did not, and the other way round."""

from __future__ import annotations

from curation.report.facts import Facts
from curation.report.section import Section
from curation.report.tables import render_table, say
from curation.report.versions import Changes, find_changes


def render(facts: Facts) -> str:
    """Rows gained by the reason that they had, and rows lost by the reason that they have."""
    if facts.selected is None:
        return say("There is no selection yet: run `curate select`.")
    changes = find_changes(facts.manifest, facts.selected.fingerprint)
    if isinstance(changes, str):
        return say(changes)
    gained, lost = changes.gained, changes.lost
    return (
        say(_describe(changes))
        + ("<h3>Gained, by the reason before</h3>" + _render(gained, "reason before") if gained else "")
        + ("<h3>Lost, by the reason now</h3>" + _render(lost, "reason now") if lost else "")
        + (say("The same rows are kept.") if not gained and not lost else "")
    )


def _render(counts: dict[str, int], head: str) -> str:
    return render_table(
        (head, "rows"), [(reason, counts[reason]) for reason in sorted(counts, key=counts.__getitem__)][::-1]
    )


def _describe(changes: Changes) -> str:
    return (
        f"Since selection {changes.before}: {changes.num_kept_before:,} rows were kept, {changes.num_kept:,} are; "
        f"{sum(changes.gained.values()):,} gained, {sum(changes.lost.values()):,} lost. "
        f"{changes.num_moved:,} others are not kept for another reason."
    )


SECTION = Section(title="Since the last selection", place=20, render=render)
