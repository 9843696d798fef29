"""What each source brought: samples, pictures, duplicates, kept rows."""

from __future__ import annotations

from curation.manifest.manifest import Manifest
from curation.report.facts import Facts
from curation.report.section import Section
from curation.report.tables import divide, render_table, say

_ROWS = """
    select source, count(*) as samples, count(*) filter (where status = 'ok') as pictures,
        count(*) filter (where kept) as kept
    from manifest group by source order by source
"""
_DUPLICATES = "select source, count(*) from samples semi join duplicates using (uid) group by source"


def render(facts: Facts) -> str:
    """A row for each source."""
    rows, duplicates = facts.manifest.query(_ROWS).fetchall(), _count_duplicates(facts.manifest)
    if not rows:
        return say("There are no samples yet: run `curate ingest`.")
    head = ("source", "samples", "pictures", "duplicates", "kept", "kept of samples")
    return render_table(
        head,
        [
            (source or "", samples, pictures, duplicates.get(source, 0), kept, divide(kept, samples))
            for source, samples, pictures, kept in rows
        ],
    )


def _count_duplicates(manifest: Manifest) -> dict[str | None, int]:
    return dict(manifest.query(_DUPLICATES).fetchall())


SECTION = Section(title="Sources", place=30, render=render)
