"""What each source brought: samples, pictures, duplicates, kept rows."""

from __future__ import annotations

from curation.manifest.manifest import Manifest
from curation.report.facts import Facts
from curation.report.section import Section
from curation.report.tables import divide, render_table, say

_DUPLICATES = "select source, count(*) from samples semi join duplicates using (uid) group by source"


def render(facts: Facts) -> str:
    """A row for each source."""
    sources = sorted(facts.tally.sources, key=lambda source: source.value)
    if not sources:
        return say("There are no samples yet: run `curate ingest`.")
    removed = _count_duplicates(facts.manifest)
    head = ("source", "samples", "pictures", "duplicates", "kept", "kept of samples")
    return render_table(
        head,
        [
            (
                each.value,
                each.num_rows,
                each.pictures,
                removed.get(each.value, 0),
                each.kept,
                divide(each.kept, each.num_rows),
            )
            for each in sources
        ],
    )


def _count_duplicates(manifest: Manifest) -> dict[str | None, int]:
    return dict(manifest.query(_DUPLICATES).fetchall())


SECTION = Section(title="Sources", place=30, render=render)
