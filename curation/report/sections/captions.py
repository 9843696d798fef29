"""How long captions are, and what filters say of them."""

from __future__ import annotations

from curation.report.bar_charts import render_distributions
from curation.report.facts import Facts
from curation.report.histograms import merge_equal
from curation.report.section import Section
from curation.report.tables import divide, format_share, say
from curation.report.tally import CAPTION_LENGTH


def is_of_caption(column: str) -> bool:
    """Whether this section shows the distribution of `column`."""
    return column == CAPTION_LENGTH or column.startswith("caption_")


def render(facts: Facts) -> str:
    """The distribution of the length in characters and of every score whose name begins with `caption_`."""
    tally = facts.tally
    if not tally.num_pictures:
        return say("No picture has come yet, so no caption of one is counted.")
    share = format_share(divide(tally.num_without_caption, tally.num_pictures))
    note = say(f"{tally.num_without_caption:,} of {tally.num_pictures:,} pictures have no caption ({share}).")
    charts = [chart for chart in tally.distributions if is_of_caption(chart.column)]
    if not charts:
        return f"{note}{say('All captions are equally long.')}"
    return note + render_distributions(merge_equal(charts))


SECTION = Section(title="Captions", place=64, render=render)
