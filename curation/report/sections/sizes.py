"""How large the pictures are: width by height in pixels, and bytes as they were fetched."""

from __future__ import annotations

from curation.report.bar_charts import LEGEND, render_distribution
from curation.report.facts import Facts
from curation.report.heat_map import describe, draw_sides
from curation.report.section import Section
from curation.report.tables import fold_table, say


def is_of_size(column: str) -> bool:
    """Whether this section shows the distribution of `column`."""
    return column in ("width", "height", "num_bytes", "aspect_ratio")


def render(facts: Facts) -> str:
    """A map of width by height, and the distribution of each."""
    tally = facts.tally
    if not tally.sides:
        return say("No picture has come yet, so no size is known.")
    charts = "".join(render_distribution(chart) for chart in tally.distributions if is_of_size(chart.column))
    rows = [(describe(x), describe(y), count) for (x, y), count in sorted(tally.sides.items())]
    table = fold_table(("width", "height", "pictures"), rows)
    plane = f"<figure><figcaption>width × height</figcaption>{draw_sides(tally.sides)}{table}</figure>"
    return f'{LEGEND}<div class="charts">{plane}{charts}</div>'


SECTION = Section(title="Sizes", place=62, render=render)
