"""Rows of metadata files in the columns of samples, each with its place and the reason why it is refused, if it is.

The URL, the caption and the condition of the source decide that; which rows are repeated is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.fetch.domains import domain_of_host, registered_domain
from curation.metadata import parquet
from curation.metadata.inputs import Input
from curation.metadata.records import read_records
from curation.metadata.text_columns import simplify, take_elements
from curation.recipe.rules import parse_where
from curation.schema import UID_SQL, RejectReason, name_captions, samples_schema
from curation.sources import TARGETS, expression

_PLACE = pa.schema([("position", pa.int64()), ("file", pa.string()), ("row", pa.int64()), ("reason", pa.string())])
"""The number of the file among those that are ingested, its name, the number of the row in it, and the reason why the
row becomes no sample; null when it may become one."""
MIN_ROWS, MAX_ROWS = 20_000, 250_000
"""Of a share."""
PLAIN_HOST = r"^https?://([A-Za-z0-9._-]+)(?::[0-9]*)?(?:[/?#]|\z)"
"""URLs whose host stands where everybody finds it; the others are parsed one by one."""


def rows_schema(num_captions: int = 1) -> pa.Schema:
    """Columns of samples with so many captions, then those that say where a row stood and why it is refused."""
    return pa.schema([*samples_schema(num_captions), *_PLACE])


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one task reads of one file: `groups` of its parts, from row `first_row` on; `position` numbers the file."""

    position: int
    item: Input
    groups: tuple[int, ...]
    first_row: int
    num_captions: int = 1
    """Columns of captions of all rows that are ingested with these."""


def choose_share(items: Sequence[Input], num_at_once: int) -> int:
    """Rows of a share of `items` where `num_at_once` shares are read side by side: a few for each, none too large."""
    return max(MIN_ROWS, min(MAX_ROWS, sum(sum(item.parts) for item in items) // (4 * num_at_once)))


def divide(items: Sequence[Input], num_rows: int) -> list[list[Share]]:
    """Shares of all rows of `items`, in their order; those of one list have about `num_rows` rows together."""
    shares: list[list[Share]] = []
    left, num_captions = 0, max((item.num_captions for item in items), default=1)
    for position, item in enumerate(items):
        first_row = 0
        for group, count in enumerate(item.parts):
            if left <= 0:
                shares.append([])
                left = num_rows
            current = shares[-1]
            if current and current[-1].position == position:
                last = current.pop()
                groups, start = (*last.groups, group), last.first_row
            else:
                groups, start = (group,), first_row
            current.append(
                Share(position=position, item=item, groups=groups, first_row=start, num_captions=num_captions)
            )
            first_row += count
            left -= count
    return shares


def read_shares(shares: Sequence[Share]) -> Iterator[pa.RecordBatch]:
    """The rows of `shares` in the columns of `rows_schema`. Raises UserError for a file that is not read to its end."""
    with duckdb.connect(config={"threads": 1}) as connection:
        for share in shares:
            yield from _read_share(connection, share)


def _read_share(connection: duckdb.DuckDBPyConnection, share: Share) -> Iterator[pa.RecordBatch]:
    row, item = share.first_row, share.item
    condition = parse_where(item.source, item.where, item.num_captions)
    wanted = list(dict.fromkeys(name for names in share.item.columns.values() for name in names))
    for batch, malformed in _read_batches(share, wanted):
        rows = _normalise(connection, share, batch, malformed, row)
        yield from (rows if condition == "true" else _ask_condition(connection, rows, condition)).to_batches()
        row += len(batch)


def _read_batches(share: Share, wanted: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, list[bool]]]:
    """The columns `wanted`, and which of the rows are malformed."""
    item = share.item
    if item.layout.kind != "parquet":
        yield from read_records(item.path, item.layout, wanted, item.elements)
        return
    places = {name: item.elements.get(name, (name, 0)) for name in wanted}
    stored = list(dict.fromkeys(column for column, _ in places.values()))
    for batch in parquet.read_columns(item.path, stored, share.groups):
        arrays = [
            take_elements(batch.column(column), place) if place else batch.column(column)
            for column, place in places.values()
        ]
        yield pa.RecordBatch.from_arrays(arrays, list(places)), [False] * len(batch)


def _normalise(
    connection: duckdb.DuckDBPyConnection, share: Share, batch: pa.RecordBatch, malformed: list[bool], first_row: int
) -> pa.Table:
    """`batch`, which has the file's own columns from row `first_row` on, in the columns of `rows_schema`."""
    simple = {name: simplify(batch.column(name)) for name in batch.schema.names}
    reasons = _find_reasons(share.item, simple, malformed)
    # Numbered names: DuckDB takes TEXT and text for one column.
    aliases = {name: f"c{number}" for number, name in enumerate(simple)}
    connection.register(
        "rows", pa.table([values for values, _ in simple.values()] + [reasons], [*aliases.values(), "refused"])
    )
    targets = [*TARGETS, *name_captions(share.num_captions)[1:]]
    taken = {target: share.item.columns.get(target, ()) for target in targets}
    columns = [
        f"{expression(target, [(aliases[name], simple[name][0].type) for name in names])} as {target}"
        for target, names in taken.items()
    ]
    # Trimming is dear: a URL with a host is not asked.
    no_url = f"case when host <> '' then null when coalesce(trim(url), '') = '' then '{RejectReason.NO_URL}' end"
    table = connection.sql(
        f"select case when refused is null then {UID_SQL} end as uid, {', '.join(targets)}, "
        f"coalesce(refused, {no_url}) as reason, host from (select *, regexp_extract(url, '{PLAIN_HOST}', 1) as host "
        f"from (select refused, {', '.join(columns)} from rows))"
    ).to_arrow_table()
    added = {
        "source": pa.repeat(share.item.source, len(table)),
        "domain": find_domains(table["url"], table["host"]),
        "position": pa.repeat(share.position, len(table)),
        "file": pa.repeat(share.item.file, len(table)),
        "row": pa.array(np.arange(first_row, first_row + len(table))),
    }
    schema = rows_schema(share.num_captions)
    made = [added[f.name] if f.name in added else table[f.name].cast(f.type) for f in schema]
    return pa.table(made, schema=schema)


def find_domains(urls: pa.ChunkedArray, hosts: pa.ChunkedArray) -> pa.Array:
    """The registered domain of each of `urls`, of which `hosts` has what PLAIN_HOST finds; that of a host once."""
    encoded = hosts.combine_chunks().dictionary_encode()
    known = pa.array([_domain_of_plain_host(host) for host in encoded.dictionary.to_pylist()], pa.string())
    domains = known.take(encoded.indices)
    others = pc.or_kleene(pc.is_null(domains), pc.equal(hosts.combine_chunks(), ""))
    if not pc.any(others).as_py():
        return domains
    parsed = [registered_domain(url or "") for url in urls.filter(others).to_pylist()]
    return pc.replace_with_mask(domains, others, pa.array(parsed, pa.string()))


def _domain_of_plain_host(host: str | None) -> str:
    return domain_of_host(host.lower().rstrip(".")) if host else ""


def _ask_condition(connection: duckdb.DuckDBPyConnection, rows: pa.Table, condition: str) -> pa.Table:
    """`rows` with reason `where` where they are not refused yet and `condition` (SQL over `m`) is not true."""
    connection.register("normalised", rows)
    asked = connection.sql(
        "select case when m.reason is not null then m.reason when not coalesce("
        f"{condition}, false) then '{RejectReason.WHERE}' end as reason from normalised as m"
    ).to_arrow_table()
    place = rows.schema.get_field_index("reason")
    return rows.set_column(place, rows.schema.field(place), asked["reason"].cast(pa.string()))


def _find_reasons(
    item: Input, simple: dict[str, tuple[pa.Array, np.ndarray | None]], malformed: list[bool]
) -> pa.Array:
    """Reason malformed, or not_text of a row whose URL or caption is no UTF-8; elsewhere such values are unknown."""
    reasons = [RejectReason.MALFORMED.value if one else None for one in malformed]
    for name in (*item.columns["url"], *item.columns["caption"]):
        wrong = simple[name][1]
        for row in () if wrong is None else np.flatnonzero(wrong):
            reasons[row] = RejectReason.NOT_TEXT.value
    return pa.array(reasons, pa.string())
