"""The keep rule: which of several copies is kept, as an order over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curation.errors import UserError

COLUMNS = {
    "resolution": "cast(width as bigint) * height",
    "num_bytes": "num_bytes",
    "clip_similarity": "clip_similarity",
    "clip_similarity_l14": "clip_similarity_l14",
    "aesthetic": "aesthetic",
    "punsafe": "punsafe",
    "pwatermark": "pwatermark",
    "source": "source",
    "uid": "uid",
}
"""What a keep rule may order by, as SQL over samples and downloads; `resolution` is that of the picture as fetched."""


TEXTS = ("uid", "source")
"""Those of COLUMNS that are no numbers."""


@dataclass(frozen=True)
class Term:
    """One entry of a keep rule: a name of COLUMNS, and whether larger values come first."""

    column: str
    descending: bool


def parse_keep(keep: Sequence[str]) -> list[Term]:
    """`["resolution desc"]` → its terms, and behind them the uid, so that no ties are left.

    Raises UserError for an unknown column or direction.
    """
    terms = []
    for entry in [*keep, "uid"]:
        column, _, direction = entry.strip().partition(" ")
        if column not in COLUMNS or direction.strip() not in ("", "asc", "desc"):
            raise UserError(f"dedupe.keep: {entry!r} is not COLUMN [asc|desc] with one of {', '.join(COLUMNS)}.")
        terms.append(Term(column, direction.strip() == "desc"))
    return terms


def order_sql(keep: Sequence[str]) -> list[str]:
    """`["resolution desc"]` → the terms of an ORDER BY that leaves no ties, as `parse_keep` reads them.

    Unknown values (null, NaN) come last whatever the direction.
    """
    terms = []
    for term in parse_keep(keep):
        value = COLUMNS[term.column]
        known = value if term.column in TEXTS else f"nullif({value}, double('nan'))"
        terms.append(f"{known} {'desc' if term.descending else 'asc'} nulls last")
    return terms
