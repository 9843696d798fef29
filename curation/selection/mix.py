"""How many rows of each source are kept, and which: `[select.mix]`, asked of the rows that all rules let pass.

Rows are drawn by a hash of seed and uid, so the draw depends on nothing but the rows: not on their order, nor on how
they are cut into units, nor on the engine. Of a source a larger share contains every smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from curation.errors import UserError
from curation.recipe.select_config import MixConfig
from curation.recipe.sql import shuffle_sql, string_sql

MIX = "mix:"
"""With the source's name behind, why the selection does not keep a row that all rules let pass."""


def allot_rows(mix: MixConfig, passed: Mapping[str, int]) -> dict[str, int]:
    """How many rows of each source are kept, given how many of each `passed` all rules: the most in the wanted ratio.

    Raises UserError for a source without a weight, and for a weighted source of which no row passed.
    """
    for source in sorted(passed):
        if source not in mix.weights:
            raise UserError(
                f"select.mix has no weight for source {source!r}, which the root has: give it one, 0 to leave it out."
            )
    wanted = {source: weight for source, weight in mix.weights.items() if weight > 0}
    for source in sorted(wanted):
        if not passed.get(source):
            raise UserError(
                f"select.mix wants rows of source {source!r}, and none passes the rules: change them, or leave it out."
            )
    scale = min(passed[source] / weight for source, weight in wanted.items())
    if mix.rows is not None:
        scale = min(scale, mix.rows / math.fsum(wanted.values()))
    # The tolerance keeps 0.7 · (10 / 0.7), which may be 9.999999999999998 in binary, at ten.
    rows = {source: min(passed[source], math.floor(weight * scale * (1 + 1e-12))) for source, weight in wanted.items()}
    return {source: rows.get(source, 0) for source in sorted({*passed, *mix.weights})}


def count_passed_sql(rows: str, reason: str) -> str:
    """A query for `source` and `n`, the rows of `rows` that `reason`, SQL over `m`, keeps."""
    # A reason may have windows, and no aggregate takes those.
    decided = f"select m.source, {reason} as reason from {rows} as m"
    return f"select m.source, count(case when m.reason is null then 1 end) as n from ({decided}) as m group by m.source"


def mixed_sql(rows: str, keys: Sequence[str], reason: str, mix: MixConfig, allotted: Mapping[str, int]) -> str:
    """A query for `keys` and `reason` of `rows`: that of the rules, or of the mix where more passed than `allotted`."""
    named = ", ".join(f"m.{key}" for key in keys)
    shuffle = shuffle_sql(f"mix {mix.seed}")
    each = f"select {named}, m.uid as mixed_uid, m.source, {reason} as reason, {shuffle} as shuffle from {rows} as m"
    rank = "row_number() over (partition by m.source, m.reason order by m.shuffle, m.mixed_uid)"
    cases = "".join(f" when {string_sql(source)} then {count}" for source, count in sorted(allotted.items()))
    left_out = (
        f"case when m.reason is null and {rank} > case m.source{cases} else 0 end then concat('{MIX}', m.source) end"
    )
    return f"select {named}, coalesce(m.reason, {left_out}) as reason from ({each}) as m"
