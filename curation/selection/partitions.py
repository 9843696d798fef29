"""Counts and row numbers over partitions, asked only of the pictures that may share a partition with another one.

Most pictures have theirs to themselves, and sorting those for a window takes most of its time. Rows of one partition
have one hash of its keys, so what a rule says of a picture whose hash no other one has needs no window. A hash that two
partitions share costs a window more and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from curation.recipe.rules import Rule
from curation.selection.engine import Engine

KEPT = "answered"
"""The table of the rows that windows are asked of."""
Keys = tuple[str, ...]


def has_partitions(rules: Sequence[Rule]) -> bool:
    """Whether a rule counts or numbers rows over partitions."""
    return any(rule.partitions for rule in rules)


def keep_rows(engine: Engine, rules: Sequence[Rule], selected: str, rows: str) -> None:
    """Let KEPT hold the columns `selected` of `rows`, SQL over `m` that names the status, and hashes of partitions."""
    hashes = "".join(
        f", case when m.status = 'ok' then hash({', '.join(keys)}) end as {_hash(number)}"
        for number, keys in enumerate(_list_keys(rules))
    )
    engine.keep_rows(KEPT, f"select {selected}{hashes} from {rows} as m")


def ask_apart(engine: Engine, rules: Sequence[Rule], ask: Callable[[Sequence[Rule]], str]) -> str:
    """A query for `ask(rules)`, the columns that rules give, SQL over `m`, of all rows of KEPT in no order."""
    shared = list[str]()
    for number in range(len(_list_keys(rules))):
        key = _hash(number)
        counted = f"select {key} from {KEPT} where {key} is not null group by {key} having count(*) > 1"
        engine.keep_rows(f"shared_{number}", counted)
        shared.append(f"coalesce(m.{key} in (from shared_{number}), false)")
    is_shared = " or ".join(shared) or "false"
    alone = [replace(rule, sql=rule.alone_sql) for rule in rules]
    return (
        f"select {ask(rules)} from (select * from {KEPT} as m where {is_shared}) as m "
        f"union all select {ask(alone)} from {KEPT} as m where not ({is_shared})"
    )


def _list_keys(rules: Sequence[Rule]) -> list[Keys]:
    """The keys of the partitions of `rules`, without those that lie within others: rows that share one share both."""
    found = sorted({keys for rule in rules for keys in rule.partitions})
    kinds = {frozenset(keys): keys for keys in reversed(found)}
    return [keys for kind, keys in kinds.items() if not any(other < kind for other in kinds)]


def _hash(number: int) -> str:
    """The column of a hash; no column of a root has such a name."""
    return f'"{number}#"'
