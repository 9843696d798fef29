"""Which concepts the captions name, and how balancing changes their shares."""

from __future__ import annotations

from curation.report.facts import Facts
from curation.report.line_charts import Curve, draw_curves, render_legend
from curation.report.section import Section
from curation.report.tables import divide, fold_table, render_table, say
from curation.report.tally import Concepts


def render(facts: Facts) -> str:
    """The ranks of concepts before and after the rule that limits the rows of each, and the largest ones."""
    concepts, rule = facts.tally.concepts, facts.selected.balancing if facts.selected else None
    if concepts is None or not concepts.largest:
        return say("No concept of a caption is known: the filters `concept_match` and `matched_entries` find them.")
    names = (f"reach {rule}", f"pass {rule}") if rule else ("all pictures", "kept")
    if rule:
        text = facts.selected.rules[rule] if facts.selected else ""
        note = say(f"The rule {rule} ({text}) limits the pictures of a concept.")
    else:
        note = say("No rule balances the concepts.")
    counted = say(f"{concepts.num_reached:,} concepts before ({names[0]}), {concepts.num_passed:,} after ({names[1]}).")
    return note + counted + _render_ranks(concepts, names) + _render_largest(concepts, names)


def _render_ranks(concepts: Concepts, names: tuple[str, str]) -> str:
    curves = [
        Curve(name=name, points=points)
        for name, points in zip(names, (concepts.reached, concepts.passed), strict=True)
        if points
    ]
    title = "Pictures of a concept, by its rank"
    chart = draw_curves(title, curves, "rank of the concept", "pictures", is_log=True)
    after = dict(concepts.passed)
    rows = [(rank, count, after.get(rank, 0)) for rank, count in concepts.reached]
    table = fold_table(("rank", *names), rows)
    legend = render_legend([curve.name for curve in curves])
    return f'<div class="charts wide"><figure><figcaption>{title}</figcaption>{legend}{chart}{table}</figure></div>'


def _render_largest(concepts: Concepts, names: tuple[str, str]) -> str:
    rows = [(each.value, each.reached, each.passed, divide(each.passed, each.reached)) for each in concepts.largest]
    return "<h3>The largest</h3>" + render_table(("concept", *names, "passed"), rows)


SECTION = Section(title="Concepts", place=66, render=render)
