"""The rules of one selection, with the columns and tables that they need, and the version that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.compaction.writing import Runs, enter_written, plan_packed
from curation.download.withdrawn import BLOCKLIST, NO_LISTS, REASON, Lists, describe_lists
from curation.errors import UserError
from curation.freshness import Fingerprints, check_fresh
from curation.recipe import rules as rule_language
from curation.recipe.balance import Balance
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.rules import DUPLICATE_COLUMNS, Rule, reason_sql
from curation.recipe.select_config import MixConfig
from curation.recipe.sql import string_sql
from curation.schema import DOWNLOADS, count_captions, samples_schema
from curation.selection.rows import IN_PLACE_OF_OK
from curation.settings import content_settings
from curation.storage import Root, fingerprint
from curation.sums.seal import is_whole
from curation.tables import DUPLICATES, SCORES, SELECTION, selection_file

Values = Mapping[Quantile, QuantileValues]
MAX_PARTITIONS = 1_000


@dataclass(frozen=True, kw_only=True)
class RuleSet:
    """Rules in their order, checked. `texts` are the rules by name, `columns` the types of all columns there are."""

    texts: Mapping[str, str]
    columns: Mapping[str, pa.DataType]
    rules: tuple[Rule, ...]
    """The rules, whose quantiles are null as long as nobody has computed them."""
    resolve: Callable[[str], str]
    """Gives the full path of a file that a rule names."""
    mix: MixConfig | None = None
    refused: Lists = NO_LISTS
    """Opt-out lists and blocklists: what they name is not kept, whatever the rules say."""

    @property
    def quantiles(self) -> list[Quantile]:
        return sorted({wanted for rule in self.rules for wanted in rule.quantiles})

    @property
    def balances(self) -> list[Balance]:
        return sorted({balance for rule in self.rules for balance in rule.balances})

    @property
    def is_global(self) -> bool:
        """Whether the answer of some rule, or the mix, depends on other rows."""
        return self.mix is not None or any(rule.is_global for rule in self.rules)

    @property
    def asks_uid(self) -> bool:
        """Whether a rule asks for the uid."""
        return any("uid" in rule.columns for rule in self.rules)

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """The files that rules name, with their entries."""
        return {name: entries for rule in self.rules for name, entries in rule.lists.items()}

    def with_quantiles(self, values: Values) -> list[Rule]:
        """The rules with the values of their quantiles."""
        return rule_language.parse(self.texts, self.columns, values, self.resolve) if values else list(self.rules)


def read_rules(
    texts: Mapping[str, str],
    scores: Mapping[str, pa.Schema],
    resolve: Callable[[str], str] = str,
    refused: Lists = NO_LISTS,
    num_captions: int = 1,
    mix: MixConfig | None = None,
) -> RuleSet:
    """Check `texts` against the manifest's columns, with so many captions, and those of the tables `scores`.

    Raises UserError.
    """
    columns = rule_language.manifest_columns(scores.values(), num_captions)
    rules = rule_language.parse(texts, columns, resolve=resolve)
    return RuleSet(texts=dict(texts), columns=columns, rules=tuple(rules), resolve=resolve, mix=mix, refused=refused)


def decision_sql(rules: Iterable[Rule]) -> str:
    """SQL over `m`: why a row is not kept, null when it is. A picture that was withdrawn reaches no rule."""
    return f"coalesce({withdrawn_sql()}, {reason_sql(rules)})"


def withdrawn_sql() -> str:
    """SQL over `m`: the reason of a row that a list names, null for the others."""
    opted_out = f"when m.status = {string_sql(IN_PLACE_OF_OK[REASON])} then {string_sql(REASON)}"
    return f"(case {opted_out} when m.status like {string_sql(f'{BLOCKLIST}%')} then m.status end)"


def name_list(status: str | None) -> str | None:
    """As `withdrawn_sql`, of one status."""
    if status == IN_PLACE_OF_OK[REASON]:
        return REASON
    return status if status is not None and status.startswith(BLOCKLIST) else None


def find_tables(rules: RuleSet, scores: Mapping[str, pa.Schema]) -> dict[str, list[str]]:
    """Tables that the rules need, each with the columns that they need of it besides uid; samples and downloads first.

    The columns of duplicates are called as in the manifest.
    """
    used = frozenset[str]().union(*(rule.reads for rule in rules.rules), ["source"] if rules.mix else [])
    samples = samples_schema(count_captions(rules.columns))
    tables = {"samples": [f.name for f in samples if f.name != "uid" and f.name in used]}
    tables["downloads"] = [f.name for f in DOWNLOADS if f.name == "status" or (f.name != "uid" and f.name in used)]
    tables |= {table: names for table, s in scores.items() if (names := [n for n in s.names if n in used])}
    if used & set(DUPLICATE_COLUMNS):
        tables[DUPLICATES] = [name for name in DUPLICATE_COLUMNS if name in used]
    return tables


def check_complete(root: Root, tables: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError, naming the command to run, unless each of `tables` has all units of the plan."""
    if not root.units("samples"):
        raise UserError(f"{root.base} has no samples: run `curate ingest` first.")
    for table in tables:
        if table == DUPLICATES:
            if root.current(table) is None:
                raise UserError("The rules use duplicates, and there are none yet: run `curate dedupe` first.")
            continue
        missing = root.missing_units(table)
        if missing:
            stage = "score" if table.startswith(SCORES) else "download"
            raise UserError(f"{table} lacks {len(missing)} units ({missing[0]} first): run `curate {stage}` first.")


def check_inputs(root: Root, tables: Mapping[str, Sequence[str]]) -> Fingerprints:
    """What `tables` hold now. Raises UserError unless they are complete, and duplicates those of what they hold now."""
    check_complete(root, tables)
    known = Fingerprints(root)
    if DUPLICATES in tables:
        check_fresh(known, DUPLICATES)
    return known


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of the selection: `fp` names it, `inputs` are the fingerprints of what it is made from."""

    root: Root
    rules: RuleSet
    inputs: Mapping[str, str]
    fp: str
    is_current: bool
    """Whether the root's current selection is this one, and all of it stands."""

    def publish(self, values: Values) -> None:
        """Make it the current version; `values` are those of the quantiles."""
        known = [entry for wanted in sorted(values) for entry in _describe_quantile(wanted, values[wanted])]
        config = _describe_rules(self.rules) | {"quantiles": known} | _describe_lists(self.rules)
        config |= _describe_mix(self.rules)
        files = [selection_file(self.fp, unit) for unit in self.root.units("samples")]
        enter_written(self.root, f"{SELECTION}/{self.fp}")
        self.root.publish_current(SELECTION, self.fp, files, config, self.inputs)


def resolve_version(root: Root, rules: RuleSet, tables: Mapping[str, Sequence[str]]) -> Version:
    """The version that `rules` make of what `tables` hold now. Raises UserError as `check_inputs` does."""
    known = check_inputs(root, tables)
    inputs = {table: known.of(table) for table in tables} | describe_lists(rules.refused, root)
    lists = _describe_lists(rules)
    mix = _describe_mix(rules)
    fp = fingerprint({"rules": list(rules.texts.items()), "inputs": inputs} | lists | mix)
    wanted = _describe_rules(rules) | {"lists": lists.get("lists"), "mix": mix.get("mix")}
    is_current = known.is_current(SELECTION, wanted, inputs) and is_whole(root, SELECTION)
    return Version(root=root, rules=rules, inputs=inputs, fp=fp, is_current=is_current)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left to do of a version: `units` are read; those of them in `written` stand already."""

    units: list[str]
    written: frozenset[str]
    runs: Runs
    """How the others are published."""


def find_work(version: Version) -> Work:
    """The units to read. A rule about all rows needs them all; else those that an interrupted run wrote stay unread."""
    units = version.root.units("samples")
    enter_written(version.root, f"{SELECTION}/{version.fp}")
    written = frozenset(version.root.units(f"{SELECTION}/{version.fp}"))
    left = units if version.rules.is_global else [unit for unit in units if unit not in written]
    return Work(units=left, written=written, runs=plan_packed(version.root, left, written))


def name_quantile(wanted: Quantile, rows: Sequence[tuple[Any, ...]]) -> QuantileValues:
    """The values of `wanted` from the `rows` of its query: keys, then the value. Raises UserError for too many keys."""
    if len(rows) > MAX_PARTITIONS:
        raise UserError(
            f"quantile({wanted.column}, {wanted.share}) goes over more than {MAX_PARTITIONS:,} partitions by "
            f"{', '.join(wanted.by)}: name columns with fewer values, such as source."
        )
    values = {tuple(row[:-1]): row[-1] for row in rows}
    return dict(sorted(values.items(), key=lambda item: [(text is not None, text or "") for text in item[0]]))


def _describe_quantile(wanted: Quantile, values: QuantileValues) -> Iterator[dict[str, Any]]:
    """What is recorded of a quantile: its value, or the value for each combination of the columns that it goes by."""
    for texts, value in values.items():
        by = {"by": dict(zip(wanted.by, texts, strict=True))} if wanted.by else {}
        yield {"column": wanted.column, "share": wanted.share, "value": value, **by}


def _describe_rules(rules: RuleSet) -> dict[str, Any]:
    return {"rules": dict(rules.texts), "order": list(rules.texts)}


def _describe_mix(rules: RuleSet) -> dict[str, Any]:
    """What is recorded of the mix; nothing without one, as for lists."""
    return {} if rules.mix is None else {"mix": content_settings(rules.mix)}


def _describe_lists(rules: RuleSet) -> dict[str, dict[str, str]]:
    """Fingerprints of the lists; nothing without any, so that such rules are called as by earlier versions."""
    lists = {name: fingerprint(list(entries)) for name, entries in rules.lists.items()}
    return {"lists": lists} if lists else {}
