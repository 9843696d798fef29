"""The keep rule: which of several copies is kept, as an order over rows."""

from __future__ import annotations

from collections.abc import Sequence

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


def order_sql(keep: Sequence[str]) -> list[str]:
    """`["resolution desc"]` → the terms of an ORDER BY that leaves no ties.

    Unknown values (null, NaN) come last whatever the direction. Raises UserError for an unknown column or direction.
    """
    terms = []
    for entry in [*keep, "uid"]:
        column, _, direction = entry.strip().partition(" ")
        if column not in COLUMNS or direction.strip() not in ("", "asc", "desc"):
            raise UserError(f"dedupe.keep: {entry!r} is not COLUMN [asc|desc] with one of {', '.join(COLUMNS)}.")
        known = f"nullif({COLUMNS[column]}, double('nan'))" if column not in ("uid", "source") else COLUMNS[column]
        terms.append(f"{known} {direction.strip() or 'asc'} nulls last")
    return terms
