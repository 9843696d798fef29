"""The order of the shuffle, a text of SQL that DuckDB and Spark read alike."""

from __future__ import annotations


def order_sql(seed: int) -> str:
    """The 128-bit position of a row in the global shuffle, as 32 hex digits: md5 of seed and uid."""
    return f"md5(concat('{seed}:', uid))"
