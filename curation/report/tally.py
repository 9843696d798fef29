"""One pass over all rows of a root: every distribution of the report, its sources, hosts, sizes and concepts.

The tables of a unit have the same rows, so units are joined a few at a time and counted, and only counts are kept: what
is held does not grow with the rows. Bins lie between quantiles of a sample of whole units, which are spread evenly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from curation.manifest.manifest import UNIT_ROWS, Manifest
from curation.manifest.quoting import quote_identifier, quote_text
from curation.plan import group_by_rows, read_plans
from curation.progress import track
from curation.recipe.thresholds import Threshold, find_thresholds
from curation.report.histograms import Bins, Cut, Distribution, choose_bins
from curation.report.selection import Selected, read_quantiles
from curation.report.text_counts import TextCount, TextCounts, open_connection
from curation.storage import Root
from curation.tables import SAMPLES

BATCH_ROWS = 250_000
SAMPLE_ROWS = 400_000
UNIT_SIZE = 10_000
"""Rows that a unit is taken to have of which no plan says it."""
NUM_CATEGORIES, NUM_HOSTS, NUM_CONCEPTS = 10, 25, 25
MAX_SOURCES = 1_000
OUTER = (0.005, 0.995)
"""The quantiles between which the bins lie."""
CAPTION_LENGTH = "caption length"
LOGARITHMIC = ("num_bytes",)
CONCEPT, ENTRIES = "concept", "matched_entries"
"""Columns of `concept_match` and of `matched_entries`: the longest concept, and all of them, one a line."""
TEXTS = ("language", "claimed_language", "format", CONCEPT)
_OTHERS = {"offset", "size", "train_offset", "train_size", "stored_width", "stored_height", "duplicate_similarity"}
"""Numbers that are no measure of a picture, or that a section asks for itself."""


@dataclass(frozen=True, kw_only=True)
class Concepts:
    """Concepts that captions name: how many there are before and after balancing, the largest ones, and the ranks.

    A rank is (place, pictures): the concept with the most pictures has place 1.
    """

    num_reached: int
    num_passed: int
    largest: Sequence[TextCount]
    reached: Sequence[tuple[int, int]]
    passed: Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What was counted. `sides` are pictures by (log2 of width, log2 of height) in halves: 15 is 2 ** 7.5 pixels."""

    num_rows: int = 0
    num_pictures: int = 0
    num_without_caption: int = 0
    distributions: Sequence[Distribution] = ()
    hosts: Sequence[TextCount] = ()
    num_hosts: int = 0
    sources: Sequence[TextCount] = ()
    concepts: Concepts | None = None
    sides: Mapping[tuple[int, int], int] = field(default_factory=dict)


def count_rows(manifest: Manifest, types: Mapping[str, pa.DataType], selected: Selected | None) -> Tally:
    """Count all rows of `manifest`, whose columns are of `types`. Raises UserError for damage, as a query does."""
    with open_connection() as connection:
        return _Counter(manifest, types, selected, connection).count()


def is_measured(name: str, dtype: pa.DataType) -> bool:
    """Whether the distribution of column `name` is of interest: it is a number, and no place of a file."""
    is_number = pa.types.is_floating(dtype) or pa.types.is_integer(dtype)
    return is_number and name not in _OTHERS and not name.startswith("claimed_")


def is_category(name: str, dtype: pa.DataType) -> bool:
    return (pa.types.is_boolean(dtype) and name != "kept") or (name in TEXTS and pa.types.is_string(dtype))


class _Counter:
    def __init__(
        self,
        manifest: Manifest,
        types: Mapping[str, pa.DataType],
        selected: Selected | None,
        connection: duckdb.DuckDBPyConnection,
    ) -> None:
        self._manifest, self._connection = manifest, connection
        self._numbers = {name: dtype for name, dtype in types.items() if is_measured(name, dtype)}
        self._texts = [name for name, dtype in types.items() if is_category(name, dtype)]
        self._thresholds = _find_thresholds(manifest.root, types, selected)
        self._reached, self._passed = _balance_sql(selected)
        self._concepts = _choose_concepts(types, selected)
        self._bins: dict[str, Bins] = {}
        self._rows = Counter[tuple[str, int]]()
        self._kept = Counter[tuple[str, int]]()
        self._totals, self._cuts = Counter[str](), Counter[tuple[str, Threshold]]()
        self._sides = Counter[tuple[int, int]]()
        self._counts = TextCounts(connection)

    def count(self) -> Tally:
        units = _size_units(self._manifest.root)
        self._choose_bins(_spread(units))
        batches = [*group_by_rows(units.items(), BATCH_ROWS)]
        for batch in track(batches, len(batches), "report, counted", "batch"):
            self._load(batch)
            self._count_batch()
        return Tally(
            num_rows=self._totals["rows"],
            num_pictures=self._totals["pictures"],
            num_without_caption=self._totals["without"],
            distributions=tuple(self._list_distributions()),
            hosts=tuple(self._counts.find_largest("domain", NUM_HOSTS, "num_rows")),
            num_hosts=self._counts.count_values("domain"),
            sources=tuple(self._counts.find_largest("source", MAX_SOURCES, "num_rows")),
            concepts=self._count_concepts(self._concepts) if self._concepts else None,
            sides=dict(self._sides),
        )

    def _load(self, units: Sequence[str]) -> None:
        """Make the rows of `units` the table `batch`."""
        concepts = [self._concepts] if self._concepts else []
        names = dict.fromkeys(["status", "kept", "reason", "domain", "source", *self._numbers, *self._texts, *concepts])
        listed = ", ".join(map(quote_identifier, names))
        sql = f"select {listed}, length(caption)::double as {quote_identifier(CAPTION_LENGTH)} from {UNIT_ROWS}"
        self._connection.register("batch", self._manifest.query_units(sql, units).to_arrow_table())

    def _choose_bins(self, units: Sequence[str]) -> None:
        if not units:
            return
        self._load(units)
        for name, dtype in {**self._numbers, CAPTION_LENGTH: pa.int32()}.items():
            value = _value(name)
            ends = self._connection.execute(
                f"select quantile_disc({value}, {[*OUTER]}) from batch as m where {_known(name)}"
            ).fetchall()[0][0]
            cuts = [each.value for _, each in self._thresholds if each.column == name]
            bins = choose_bins(ends[0], ends[1], dtype, cuts, is_log=name in LOGARITHMIC) if ends else None
            if bins is not None:
                self._bins[name] = bins

    def _count_batch(self) -> None:
        rows, pictures, without = self._ask(
            "select count(*), count(*) filter (where status = 'ok'), count(*) filter (where status = 'ok' and "
            f"coalesce({quote_identifier(CAPTION_LENGTH)}, 0) = 0) from batch"
        )[0]
        self._totals.update(rows=rows, pictures=pictures, without=without)
        for name, bins in self._bins.items():
            for place, count, kept in self._ask(
                f"select {bins.sql(_value(name))} as b, count(*), count(*) filter (where kept) from batch as m "
                f"where {_known(name)} group by b"
            ):
                self._rows[name, place] += count
                self._kept[name, place] += kept
        for name in ("domain", "source", *self._texts):
            self._counts.add(name, f"{quote_identifier(name)}::varchar", self._reached, self._passed)
        if self._concepts == ENTRIES:
            entries = f"unnest(string_split({quote_identifier(ENTRIES)}, chr(10)))"
            self._counts.add(ENTRIES, entries, self._reached, self._passed)
        self._count_cuts()
        for x, y, count in self._ask(
            "select floor(2 * log2(width))::int as x, floor(2 * log2(height))::int as y, count(*) from batch "
            "where status = 'ok' and width > 0 and height > 0 group by x, y"
        ):
            self._sides[x, y] += count

    def _count_cuts(self) -> None:
        if not self._thresholds:
            return
        asked = ", ".join(f"count(*) filter (where status = 'ok' and {each.sql})" for _, each in self._thresholds)
        for named, count in zip(self._thresholds, self._ask(f"select {asked} from batch as m")[0], strict=True):
            self._cuts[named] += count

    def _list_distributions(self) -> Iterator[Distribution]:
        for name, bins in self._bins.items():
            counts = tuple(self._rows[name, place] for place in range(bins.num_bins))
            kept = tuple(self._kept[name, place] for place in range(bins.num_bins))
            unknown = self._totals["pictures"] - sum(counts)
            cuts = tuple(
                Cut(rule, each.operator, each.value, self._cuts[rule, each])
                for rule, each in self._thresholds
                if each.column == name
            )
            if len([count for count in counts if count]) > 1:
                yield Distribution(name, bins.labels, counts, kept, unknown, bins, cuts)
        for name in self._texts:
            found = [each for each in self._counts.find_largest(name, NUM_CATEGORIES) if each.pictures]
            if len(found) > 1:
                known = self._counts.sum_pictures(name)
                yield Distribution(
                    name,
                    tuple(each.value for each in found),
                    tuple(each.pictures for each in found),
                    tuple(each.kept for each in found),
                    self._totals["pictures"] - known,
                )

    def _count_concepts(self, name: str) -> Concepts:
        ranks = _spread_ranks(self._counts.count_values(name, "pictures"))
        return Concepts(
            num_reached=self._counts.count_values(name, "reached"),
            num_passed=self._counts.count_values(name, "passed"),
            largest=self._counts.find_largest(name, NUM_CONCEPTS),
            reached=self._counts.rank(name, "reached", ranks),
            passed=self._counts.rank(name, "passed", ranks),
        )

    def _ask(self, sql: str) -> list[tuple[int, ...]]:
        return self._connection.execute(sql).fetchall()


def _choose_concepts(types: Mapping[str, pa.DataType], selected: Selected | None) -> str | None:
    """The column of concepts to count: the one that the rule goes by which balances them, where there are both."""
    known = [name for name in (CONCEPT, ENTRIES) if name in types and pa.types.is_string(types[name])]
    rule = selected.rules[selected.balancing] if selected and selected.balancing else ""
    return next((name for name in known if re.search(rf"\b{name}\b", rule, re.IGNORECASE)), next(iter(known), None))


def _value(name: str) -> str:
    return f"m.{quote_identifier(name)}::double"


def _known(name: str) -> str:
    positive = f" and {_value(name)} > 0" if name in LOGARITHMIC else ""
    return f"status = 'ok' and isfinite({_value(name)}){positive}"


def _find_thresholds(
    root: Root, types: Mapping[str, pa.DataType], selected: Selected | None
) -> list[tuple[str, Threshold]]:
    """(rule, threshold) of every rule of the selection."""
    if selected is None:
        return []
    quantiles = read_quantiles(root)
    found = [(rule, each) for rule, text in selected.rules.items() for each in find_thresholds(text, types, quantiles)]
    return [(rule, each) for rule, each in found if is_measured(each.column, types[each.column])]


def _balance_sql(selected: Selected | None) -> tuple[str, str]:
    """SQL for whether a row reaches the rule that balances concepts, and whether that rule lets it pass."""
    name = selected.balancing if selected else None
    if selected is None or name is None:
        return "status = 'ok'", "kept"
    rules = [*selected.rules]
    before = "".join(f" and coalesce(reason, '') <> {quote_text(rule)}" for rule in rules[: rules.index(name)])
    reached = f"status = 'ok' and kept is not null{before}"
    return reached, f"{reached} and coalesce(reason, '') <> {quote_text(name)}"


def _size_units(root: Root) -> dict[str, int]:
    """Rows of each unit of samples, as the plans have them."""
    planned = {f"{plan['batch']}-{unit}": count for plan in read_plans(root) for unit, count in plan["units"].items()}
    return {unit: int(planned.get(unit, UNIT_SIZE)) for unit in root.units(SAMPLES)}


def _spread(units: Mapping[str, int]) -> list[str]:
    """Units of about SAMPLE_ROWS rows, spread evenly; all when there are no more."""
    every = max(1, -(-sum(units.values()) // SAMPLE_ROWS))
    return list(units)[::every]


def _spread_ranks(last: int) -> list[int]:
    """Ranks from 1 to `last`, of which each is about a fifth more than the one before."""
    ranks = {round(1.2**power) for power in range(200) if 1.2**power <= last}
    return sorted({*ranks, *([last] if last else [])})
