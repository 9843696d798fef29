"""The languages of captions: as a filter finds them, and as the metadata claims them."""

from __future__ import annotations

from curation.report.bar_charts import render_distributions
from curation.report.facts import Facts
from curation.report.section import Section
from curation.report.tables import say


def is_of_language(column: str) -> bool:
    """Whether this section shows the distribution of `column`."""
    return column in ("language", "claimed_language", "language_probability")


def render(facts: Facts) -> str:
    """The ten most frequent languages."""
    charts = [chart for chart in facts.tally.distributions if is_of_language(chart.column)]
    if not charts:
        return say(
            "No two languages are known: the metadata claims none, and no filter `language` has scored the captions."
        )
    return render_distributions(charts)


SECTION = Section(title="Languages", place=63, render=render)
