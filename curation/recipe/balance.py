"""Balancing over all entries that a row matches, as MetaCLIP does it (Xu et al. 2023, algorithm 1).

An entry that n rows match samples each of them with probability min(1, t / n), and a row is kept when one of its
entries samples it: with probability 1 - Π (1 - min(1, t / n)). Here seed, uid and entry decide the draw, so that every
run keeps the same rows. Since `draw < t / n` is `draw · n < t`, the least draw · n of a row is the bound above which
every t keeps it, and a larger t keeps all that a smaller one does. The bound is computed before the rules are asked, by
two queries that Spark and DuckDB share, and rules compare it as a column of `m`.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from curation.recipe.sql import string_sql

MACROS_IN_DUCKDB = (
    "create or replace temp macro explode(texts) as unnest(texts)",
    "create or replace temp macro conv(digits, from_base, to_base) as cast(concat('0x', digits) as bigint)",
)
"""What a connection to DuckDB needs before it can run these queries: functions that Spark has by these names."""
HEX_DIGITS = 13
"""Hexadecimal digits of an md5 that make a draw: a double holds 52 bits exactly."""


class Balance(NamedTuple):
    """What is balanced: `entries_sql` over `m` gives a row's entries, one a line; it reads `columns`."""

    entries_sql: str
    seed: str
    columns: tuple[str, ...]

    @property
    def bound(self) -> str:
        """The column of the bound, a double; null for a row without entries."""
        told = f"{self.seed}\n{self.entries_sql}"
        return f"least_t_{hashlib.md5(told.encode()).hexdigest()[:12]}"

    @property
    def counts(self) -> str:
        """A name for the table that `count_entries_sql` makes."""
        return f"entries_of_{self.bound}"


def count_entries_sql(rows: str, balance: Balance) -> str:
    """A query for `entry` and `n`, the rows of `rows` that match it, of those whose picture came."""
    return (
        f"select e.entry, cast(count(*) as double) as n from ({_explode_sql(rows, balance, [])}) as e "
        "where e.entry <> '' group by e.entry"
    )


def bound_sql(rows: str, balance: Balance, key: str) -> str:
    """A query for `key`, a column of `rows`, and the bound of every row that has an entry.

    A table `balance.counts` holds what `count_entries_sql` gives. Spark is told to send it to every task: shuffled by
    entry, the rows of the most frequent entries would be one task's.
    """
    hashed = f"md5(concat({string_sql(f'{balance.seed} ')}, e.uid, ' ', e.entry))"
    draw = f"cast(cast(conv(substr({hashed}, 1, {HEX_DIGITS}), 16, 10) as bigint) as double)"
    keys = [key] if key == "uid" else [key, "uid"]
    return (
        f"select /*+ broadcast(c) */ e.{key}, min({draw} * c.n) / {16**HEX_DIGITS} as {balance.bound} "
        f"from ({_explode_sql(rows, balance, keys)}) as e join {balance.counts} as c on e.entry = c.entry "
        f"group by e.{key}"
    )


def _explode_sql(rows: str, balance: Balance, keys: list[str]) -> str:
    """A query for `keys` and `entry`: a row for each entry of a row, and one that is named twice counts once."""
    named = "".join(f"m.{key}, " for key in keys)
    entries = f"explode(array_distinct(split({balance.entries_sql}, chr(10))))"
    return f"select {named}{entries} as entry from {rows} as m where m.status = 'ok'"
