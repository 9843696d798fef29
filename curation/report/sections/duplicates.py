"""What duplicates were removed: by tier, by similarity, and how large their groups are."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from curation.manifest.manifest import Manifest
from curation.report.axes import draw_bars, draw_frame, draw_tips, tick_counts
from curation.report.facts import Facts
from curation.report.section import Section
from curation.report.tables import fold_table, render_table, say
from curation.tables import DUPLICATES

BIN = 0.01
"""The width of a bin of similarities."""
LAST = 99
"""The bin of the highest similarities; those of 1 are in it too."""
_TIERS = """
    select tier, count(*), count(distinct component), min(similarity)::double, median(similarity)::double
    from duplicates group by tier order by count(*) desc, tier
"""
_BINS = f"""
    select tier, least(greatest(floor(similarity::double / {BIN} + 1e-6), 0), {LAST})::int as bin, count(*)
    from duplicates where isfinite(similarity) group by tier, bin order by tier, bin
"""
_GROUPS = """
    select case when n = 2 then '2' when n = 3 then '3' when n <= 5 then '4 to 5' when n <= 10 then '6 to 10'
        when n <= 100 then '11 to 100' when n <= 1000 then '101 to 1,000' else 'over 1,000' end as size,
        count(*), sum(n - 1)::bigint
    from (select component, count(*) + 1 as n from duplicates group by component) group by size order by min(n)
"""


def render(facts: Facts) -> str:
    """Tiers, a chart of similarities for each tier that has several, and sizes of groups."""
    if facts.root.current(DUPLICATES) is None:
        return say("No duplicates have been looked for yet: run `curate dedupe`.")
    tiers = facts.manifest.query(_TIERS).fetchall()
    if not tiers:
        return say("No duplicates were found.")
    groups = facts.manifest.query(_GROUPS).fetchall()
    head = ("tier", "rows removed", "groups", "least similarity", "median")
    return (
        render_table(head, tiers)
        + f'<div class="charts">{"".join(_render_charts(facts.manifest))}</div>'
        + "<h3>Pictures in a group</h3>"
        + render_table(("pictures in it, the kept one among them", "groups", "rows removed"), groups)
    )


def _render_charts(manifest: Manifest) -> Iterator[str]:
    by_tier: dict[str, dict[int, int]] = {}
    for tier, place, count in manifest.query(_BINS).fetchall():
        by_tier.setdefault(tier, {})[place] = count
    for tier, counts in by_tier.items():
        if len(counts) > 1:
            yield _render_chart(tier, counts)


def _render_chart(tier: str, counts: dict[int, int]) -> str:
    first, last = min(counts), max(counts)
    values = [counts.get(place, 0) for place in range(first, last + 1)]
    labels = [f"{place * BIN:.2f} to {(place + 1) * BIN:.2f}" for place in range(first, last + 1)]
    tips = [f"{label}: {value:,} rows removed" for label, value in zip(labels, values, strict=True)]
    ends = [(0.0, f"{first * BIN:.2f}"), (1.0, f"{(last + 1) * BIN:.2f}")]
    top = max(values)
    chart = draw_frame(
        f"Similarity of the {tier} duplicates to the rows that are kept instead",
        "similarity",
        "rows removed",
        ends,
        tick_counts(top),
        draw_bars(values, top, "kept") + draw_tips(tips),
    )
    table = fold_table(("similarity", "rows removed"), zip(labels, values, strict=True))
    return f"<figure><figcaption>{escape(tier)}</figcaption>{chart}{table}</figure>"


SECTION = Section(title="Duplicates", place=50, render=render)
