"""Examples of downloads that failed: a few URLs for each status."""

from __future__ import annotations

from curation.manifest.quoting import quote_text
from curation.report.facts import Facts
from curation.report.section import Section
from curation.report.tables import render_table, say

NUM_EXAMPLES = 2


def render(facts: Facts) -> str:
    """The URLs with the lowest uids of each status that is not ok."""
    if not facts.has_downloads:
        return say("Nothing has been downloaded yet: run `curate download`.")
    found = facts.manifest.query(
        f"select status, min(uid, {NUM_EXAMPLES}) from downloads where status <> 'ok' group by status"
    ).fetchall()
    uids = [uid for _, group in found for uid in group]
    if not uids:
        return say("Every picture came.")
    rows = facts.manifest.query(
        "select status, url, detail from manifest "
        f"where uid in ({', '.join(map(quote_text, uids))}) and status <> 'ok' order by status, uid"
    ).fetchall()
    return render_table(("status", "URL", "detail"), [(status, url, detail or "–") for status, url, detail in rows])


SECTION = Section(title="Downloads that failed", place=90, render=render)
