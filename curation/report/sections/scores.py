"""The distribution of each score over the pictures that came, with the thresholds of rules."""

from __future__ import annotations

from curation.report.bar_charts import render_distributions
from curation.report.facts import Facts
from curation.report.histograms import merge_equal
from curation.report.section import Section
from curation.report.sections import captions, languages, sizes
from curation.report.tables import say


def render(facts: Facts) -> str:
    """Every distribution that no other section shows."""
    if not facts.has_downloads:
        return say("No picture has come yet: run `curate download`.")
    others = (captions.is_of_caption, languages.is_of_language, sizes.is_of_size)
    charts = [chart for chart in facts.tally.distributions if not any(is_other(chart.column) for is_other in others)]
    if not charts:
        return say("No score differs between the pictures: name filters in the recipe, and run `curate score`.")
    return render_distributions(merge_equal(charts))


SECTION = Section(title="Scores", place=40, render=render)
