"""What `curate merge` says in the end: a table of what became of the rows of each root, and what is to be made anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from curation.merging.rows import Fate
from curation.remedies import stage_of
from curation.storage import Root
from curation.tables import DOWNLOADS, embedding_tables, metadata_folder, score_tables

STAGES = ("download", "embed", "dedupe", "score", "select", "pack")
AFTER = ("dedupe", "select", "pack")
"""The stages whose tables are made from all rows at once, and never merged."""


def describe_merge(
    roots: Sequence[Root], target: Root, counts: Sequence[Mapping[str, int]], without: Iterable[str] = ()
) -> str:
    """The rows of each root by what became of them, which of those are in `target`, and how to go on.

    Tables `without` were left out, to be made anew.
    """
    names = [fate.name.lower() for fate in Fate]
    lines = [["", "rows", *names]]
    for root, found in zip(roots, counts, strict=True):
        lines.append(
            [root.base, *(f"{number:,}" for number in (sum(found.values()), *(found[name] for name in names)))]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))])
        for first, *cells in lines
    ]
    number = sum(found[Fate.TAKEN.name.lower()] for found in counts)
    needed = {*_list_lacking(target), *(stage for table in without if (stage := stage_of(f"{table}/"))), *AFTER}
    how = ", ".join(f"`curate {stage}`" for stage in STAGES if stage in needed)
    return "\n".join([*table, f"{target.base} has {number:,} rows, each uid once: go on with {how}.", ""])


def _list_lacking(target: Root) -> Iterator[str]:
    """The stages that complete what some of the roots have and others do not."""
    num_units = len(target.units("samples"))
    if target.missing_units(DOWNLOADS):
        yield "download"
    if any(len(target.units(metadata_folder(table))) < num_units for table in embedding_tables(target)):
        yield "embed"
    if any(target.missing_units(table) for table in score_tables(target)):
        yield "score"
