"""What rules would drop, counted without writing anything: `curate select --what-if rules.toml`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from curation.private_folder import make_private_folder
from curation.recipe.rules import Rule, passes_sql
from curation.recipe.select_config import MixConfig, SelectConfig
from curation.selection.engine import PLACE_BITS, Engine, Tables, open_engine
from curation.selection.mix import MIX, allot_rows
from curation.selection.partitions import KEPT, ask_apart, has_partitions, keep_rows
from curation.selection.rows import LostRows, join_unit
from curation.selection.rule_set import RuleSet, check_inputs, name_list
from curation.storage import Root

ALL, SOURCE = "all sources", "source "
ROWS_MASK = (1 << PLACE_BITS) - 1


@dataclass
class Drops:
    """What the rules drop of one source, or of all. Each counter has rules as keys and pictures as counts."""

    num_rows: int = 0
    num_pictures: int = 0
    num_kept: int = 0
    alone: Counter[str] = field(default_factory=Counter)
    """Pictures that the rule drops when no other rule is asked."""
    in_order: Counter[str] = field(default_factory=Counter)
    """Pictures of which it is the first rule to say no: what `curate select` records as their reason."""
    only: Counter[str] = field(default_factory=Counter)
    """Pictures that no other rule drops."""
    listed: Counter[str] = field(default_factory=Counter)
    """Pictures that no rule drops and that are left out all the same, by reason: by lists or by the mix."""

    def add(self, count: int, came: bool, refused: Sequence[str], listed: str | None = None) -> None:
        """Count `count` rows of which the rules `refused`, in order, say no, or that are `listed` for this reason."""
        self.num_rows += count
        if listed is not None:
            self.listed[listed] += count
        if not came:
            return
        self.num_pictures += count
        if not refused:
            self.num_kept += count
            return
        self.in_order[refused[0]] += count
        for name in refused:
            self.alone[name] += count
        if len(refused) == 1:
            self.only[refused[0]] += count


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """Drops by source, all of them first, and for each rule the places of some pictures that carry it as reason."""

    drops: Mapping[str, Drops]
    examples: Mapping[str, Sequence[int]]


def count_drops(
    root: Root, rules: RuleSet, tables: Mapping[str, Sequence[str]], limits: SelectConfig, num_examples: int = 0
) -> WhatIf:
    """Ask every rule about every row, in one pass. Raises UserError; writes nothing into the root."""
    check_inputs(root, tables)
    names = [rule.name for rule in rules.rules]
    drops, places, lost = {ALL: Drops()}, dict[str, list[int]](), LostRows()
    with open_engine(root, rules, root.units("samples"), limits, make_private_folder(), name="what-if") as engine:
        batches = engine.query(_count_sql(_ask(engine, rules, tables, lost, num_examples > 0), names, num_examples))
        for row in (row for batch in batches for row in batch.to_pylist()):
            refused = [name for number, name in enumerate(names) if row[f"{number}?"]]
            _add(drops, row["source"], row["n"], True, refused)
            if refused and num_examples:
                places.setdefault(refused[0], []).extend(row["places"])
    for (source, status), count in lost.items():
        _add(drops, source, count, False, listed=name_list(status))
    if rules.mix is not None:
        _draw_mix(rules.mix, drops)
    ordered = {name: drops[name] for name in [ALL, *sorted(set(drops) - {ALL})]}
    return WhatIf(drops=ordered, examples={name: sorted(found)[:num_examples] for name, found in places.items()})


def _add(
    drops: dict[str, Drops],
    source: str | None,
    count: int,
    came: bool,
    refused: Sequence[str] = (),
    listed: str | None = None,
) -> None:
    for name in (ALL, f"{SOURCE}{source}"):
        drops.setdefault(name, Drops()).add(count, came, refused, listed)


def _count_sql(asked: str, names: Sequence[str], num_examples: int) -> str:
    """A query for how many pictures of each source the same rules refuse, and the places of some."""
    keys = ", ".join(["source", *map(_answer, range(len(names)))])
    some = f", min(place, {num_examples}) as places" if num_examples else ""
    return f"select {keys}, count(*) as n{some} from ({asked}) as e group by {keys}"


def _ask(engine: Engine, rules: RuleSet, tables: Tables, lost: LostRows, with_place: bool) -> str:
    """A query for `source`, `place` if wanted, and whether rule N refuses (`N?`), of each picture.

    What a rule says of a row alone is asked first: a rule about all rows is then asked beside answers, and not beside
    the columns that gave them. Rows are read once, also where quantiles have to be known before.
    """
    engine.balance(tables)
    wanted: Tables = {**tables, "samples": list(dict.fromkeys(["source", *tables["samples"]]))}
    rows = engine.rows_sql(wanted, with_uid=rules.asks_uid, lost=lost)
    late = [number for number, rule in enumerate(rules.rules) if rule.is_global]
    own = [number for number in range(len(rules.rules)) if number not in late]
    first = _answers_sql(rules.rules, own, [], with_place)
    if not late:
        return f"select {first} from {rows} as m"
    named = frozenset[str]().union(*(rules.rules[number].columns for number in late)) - {"source", "status"}
    kept = [*sorted(named), *(balance.bound for balance in rules.balances)]
    answered = ", ".join([first, *(f"m.{name}" for name in ["status", *kept])])
    if not rules.quantiles and not has_partitions(rules.rules):
        return (
            f"select {_answers_sql(rules.rules, late, own, with_place)} from (select {answered} from {rows} as m) as m"
        )
    keep_rows(engine, rules.rules, answered, rows)
    known = rules.with_quantiles(engine.compute_quantiles_of(KEPT))
    return ask_apart(engine, known, lambda asked: _answers_sql(asked, late, own, with_place))


def _answer(number: int) -> str:
    """The column of what rule `number` says; no column of a root has such a name."""
    return f'"{number}?"'


def _answers_sql(rules: Sequence[Rule], asked: Collection[int], known: Sequence[int], with_place: bool) -> str:
    """`source`, `place` if wanted, and the answers of the rules `asked` and `known`; rows have the latter."""
    place = ["m.place"] if with_place else []
    answers = [f"not {passes_sql(rules[number])} as {_answer(number)}" for number in asked]
    return ", ".join(["m.source", *place, *answers, *(f"m.{_answer(number)}" for number in known)])


def _draw_mix(mix: MixConfig, drops: Mapping[str, Drops]) -> None:
    """Count what the mix leaves out of the pictures that the rules keep. Raises UserError as `allot_rows` does."""
    passed = {name.removeprefix(SOURCE): counts.num_kept for name, counts in drops.items() if name != ALL}
    for source, count in allot_rows(mix, passed).items():
        for name in (ALL, f"{SOURCE}{source}") if source in passed else ():
            drops[name].listed[f"{MIX}{source}"] += passed[source] - count
            drops[name].num_kept -= passed[source] - count


def render_what_if(root: Root, rules: RuleSet, tables: Mapping[str, Sequence[str]], found: WhatIf) -> str:
    """The counts as one table for all sources and one for each, then the examples."""
    parts = [_render_drops(source, rules, drops) for source, drops in found.drops.items()]
    examples = "".join(_render_examples(root, rules, tables, found.examples))
    return "\n".join([*parts, *([examples] if examples else [])])


def _render_drops(source: str, rules: RuleSet, drops: Drops) -> str:
    names = [rule.name for rule in rules.rules]
    head = f"{source}: {drops.num_rows:,} rows, {drops.num_pictures:,} pictures, {drops.num_kept:,} kept"
    cells = [("rule", "alone", "in order", "only it")]
    cells += [(n, f"{drops.alone[n]:,}", f"{drops.in_order[n]:,}", f"{drops.only[n]:,}") for n in names]
    cells += [(reason, "", f"{count:,}", "") for reason, count in sorted(drops.listed.items())]
    widths = [max(len(cell[k]) for cell in cells) for k in range(4)]
    lines = (
        f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in cells
    )
    return "\n".join([head, *lines]) + "\n"


def _render_examples(
    root: Root, rules: RuleSet, tables: Mapping[str, Sequence[str]], examples: Mapping[str, Sequence[int]]
) -> Iterator[str]:
    units = root.units("samples")
    for rule in rules.rules:
        if rule.name not in examples:
            continue
        yield f"{rule.name}: {rule.text}\n"
        for place in examples[rule.name]:
            row = _read_row(root, units[place >> PLACE_BITS], place & ROWS_MASK, tables)
            shown = [f"{name}={row[name]}" for name in sorted(rule.reads - {"uid", "status"}) if name in row]
            yield f"  {row['url']}  {row['caption']!r}  {' '.join(shown)}\n"


def _read_row(root: Root, unit: str, number: int, tables: Mapping[str, Sequence[str]]) -> dict[str, object]:
    samples = list(dict.fromkeys(["url", "caption", *tables["samples"]]))
    rows: pa.Table = join_unit(root, unit, {**tables, "samples": samples})
    return dict(rows.slice(number, 1).to_pylist()[0])
