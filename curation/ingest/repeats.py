"""Counts of domains and repeats of uids over all rows of an ingest, by DuckDB, out of core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from curation.ingest.candidates import Candidates
from curation.ingest.engine import DomainCounts
from curation.ingest.parts import PLACE_BITS
from curation.ingest.placing import Numbers
from curation.plan import NUM_LARGEST
from curation.schema import SAMPLES
from curation.selection.streams import Streams

_UIDS = pa.schema([SAMPLES.field("uid")])
_PLACED_UIDS = _UIDS.append(pa.field("place", pa.int64()))
_DOMAINS = pa.schema([("domain", pa.string()), ("n", pa.int64())])
# The first of the rows with one uid is that with the least place; a uid of an earlier plan has no first row here.
_FIRSTS = "select uid, min(place) as first from uids group by uid having count(*) > 1"
_REPEATED = (
    f"select place from uids join ({_FIRSTS}) using (uid) where place <> first "
    "union select place from uids semi join earlier_uids using (uid)"
)
_AS_NUMBER = "try_cast(uid as uuid) as uid"
"""16 bytes of each, in place of 32 characters."""


def sum_domains(streams: Streams, counts: Iterable[pa.Table]) -> None:
    """Add up `counts` (`domain`, `n`), which are taken as they come."""
    streams.register("counts", _DOMAINS, counts)
    streams.execute("create temp table domains as select domain, sum(n)::bigint as n from counts group by domain")


def count_domains(streams: Streams, least: int) -> DomainCounts:
    """What was added up by `sum_domains`."""

    def ask(sql: str) -> list[tuple[str, int]]:
        return [(row["domain"], row["n"]) for batch in streams.query(sql) for row in batch.to_pylist()]

    ((_, num_rows),) = ask("select '' as domain, coalesce(sum(n), 0)::bigint as n from domains")
    largest = ask(f"select * from domains order by n desc, domain limit {NUM_LARGEST}")
    placed = dict(ask(f"select * from domains where n >= {least}"))
    return DomainCounts(num_rows=num_rows, placed=placed, largest=[domain for domain, _ in largest])


def find_repeats(
    streams: Streams,
    read_uids: Callable[[], Iterable[pa.Table]],
    earlier: Iterable[pa.Table],
    num_rows: int,
    num_parts: int,
) -> Iterator[Numbers]:
    """For each part the numbers of its rows that are repeated, ascending.

    `read_uids` gives `uid` and `place` of the rows that are not refused, at most `num_rows`, and is called twice;
    `earlier` has the uids of earlier plans. DuckDB compares the candidates alone. Raises UserError for a uid that is
    none.
    """
    candidates = Candidates(num_rows)
    for uids in read_uids():
        candidates.add(uids)
    streams.register("known_uids", _UIDS, map(candidates.meet, earlier))
    streams.execute(f"create temp table earlier_uids as select {_AS_NUMBER} from known_uids")
    streams.register("new_uids", _PLACED_UIDS, map(candidates.select, read_uids()))
    streams.execute(f"create temp table uids as select {_AS_NUMBER}, place from new_uids")
    places = streams.query(f"select place from ({_REPEATED}) order by place")
    yield from _split_parts((batch["place"].to_numpy() for batch in places), num_parts)
    streams.execute("drop table uids")
    streams.execute("drop table earlier_uids")


def _split_parts(places: Iterable[Numbers], num_parts: int) -> Iterator[Numbers]:
    """Ascending `places` as the numbers of rows in each of `num_parts` parts."""
    part, held = 0, list[Numbers]()
    for batch in places:
        parts = batch >> PLACE_BITS
        while len(batch) and part < parts[-1]:
            stop = int(np.searchsorted(parts, part, side="right"))
            yield _number_rows([*held, batch[:stop]])
            part, held, batch, parts = part + 1, [], batch[stop:], parts[stop:]
        held.append(batch)
    for _ in range(part, num_parts):
        yield _number_rows(held)
        held = []


def _number_rows(places: Sequence[Numbers]) -> Numbers:
    return np.concatenate([np.zeros(0, np.int64), *places]) & ((1 << PLACE_BITS) - 1)
