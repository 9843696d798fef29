"""What rules would drop, counted without writing anything: `curate select --what-if rules.toml`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from curation.private_folder import make_private_folder
from curation.recipe.rules import passes_sql
from curation.recipe.select_config import MixConfig, SelectConfig
from curation.selection.engine import PLACE_BITS, Tables, open_engine
from curation.selection.mix import MIX, allot_rows
from curation.selection.rows import join_unit
from curation.selection.rule_set import RuleSet, check_inputs, withdrawn_sql
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
    samples = list(dict.fromkeys(["source", *tables["samples"]]))
    wanted: Tables = {**tables, "samples": samples}
    names = [rule.name for rule in rules.rules]
    drops, places = {ALL: Drops()}, dict[str, list[int]]()
    with open_engine(root, rules, root.units("samples"), limits, make_private_folder(), name="what-if") as engine:
        values = engine.compute_quantiles(tables)
        rows = engine.rows_sql(wanted, with_uid=rules.asks_uid)
        refusals = "".join(
            f", m.status = 'ok' and not {passes_sql(rule)} as r{number}"
            for number, rule in enumerate(rules.with_quantiles(values))
        )
        came = "coalesce(m.status = 'ok', false) as came"
        each = f"select m.source, m.place, {came}, {withdrawn_sql()} as listed{refusals} from {rows} as m"
        keys = ", ".join(["source", "came", "listed", *(f"r{number}" for number in range(len(names)))])
        some = f", min(place, {num_examples}) as places" if num_examples else ""
        for batch in engine.query(f"select {keys}, count(*) as n{some} from ({each}) as e group by {keys}"):
            for row in batch.to_pylist():
                refused = [name for number, name in enumerate(names) if row[f"r{number}"]]
                for source in (ALL, f"{SOURCE}{row['source']}"):
                    drops.setdefault(source, Drops()).add(row["n"], row["came"], refused, row["listed"])
                if refused and num_examples:
                    places.setdefault(refused[0], []).extend(row["places"])
    if rules.mix is not None:
        _draw_mix(rules.mix, drops)
    ordered = {name: drops[name] for name in [ALL, *sorted(set(drops) - {ALL})]}
    return WhatIf(drops=ordered, examples={name: sorted(found)[:num_examples] for name, found in places.items()})


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
            shown = [f"{name}={row[name]}" for name in sorted(rule.columns - {"uid", "status"}) if name in row]
            yield f"  {row['url']}  {row['caption']!r}  {' '.join(shown)}\n"


def _read_row(root: Root, unit: str, number: int, tables: Mapping[str, Sequence[str]]) -> dict[str, object]:
    samples = list(dict.fromkeys(["url", "caption", *tables["samples"]]))
    rows: pa.Table = join_unit(root, unit, {**tables, "samples": samples})
    return dict(rows.slice(number, 1).to_pylist()[0])
