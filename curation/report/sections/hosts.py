"""Which registered domains the rows come from, and how many of them came and were kept."""

from __future__ import annotations

from curation.report.facts import Facts
from curation.report.section import Section
from curation.report.tables import divide, render_table, say


def render(facts: Facts) -> str:
    """The largest hosts."""
    tally = facts.tally
    if not tally.hosts:
        return say("No row names a host: an adopted folder has no addresses.")
    listed = sum(host.num_rows for host in tally.hosts)
    sentence = f"{tally.num_hosts:,} registered domains. "
    if tally.num_hosts > len(tally.hosts):
        sentence += f"The {len(tally.hosts)} largest have {100 * divide(listed, tally.num_rows):.2f} % of all rows."
    head = ("registered domain", "rows", "of all", "pictures", "came", "kept", "kept of pictures")
    rows = [
        (
            host.value or "(none)",
            host.num_rows,
            divide(host.num_rows, tally.num_rows),
            host.pictures,
            divide(host.pictures, host.num_rows),
            host.kept,
            divide(host.kept, host.pictures),
        )
        for host in tally.hosts
    ]
    return say(sentence) + render_table(head, rows)


SECTION = Section(title="Hosts", place=60, render=render)
