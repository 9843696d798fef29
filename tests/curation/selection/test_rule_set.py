"""The rules of a selection: which tables and columns they need, and how their quantiles are kept."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.errors import UserError
from curation.recipe.expressions import Quantile
from curation.selection.rule_set import MAX_PARTITIONS, find_tables, name_quantile, read_rules

SCORES = {
    "scores_aspect_ratio": pa.schema([("aspect_ratio", pa.float32())]),
    "scores_blur": pa.schema([("laplacian_variance", pa.float32())]),
}


def test_only_the_columns_that_rules_use_are_read() -> None:
    rules = read_rules({"wide": "aspect_ratio > 1 and width > 9", "one": "duplicate_of is null", "c": "true"}, SCORES)
    assert find_tables(rules, SCORES) == {
        "samples": [],
        "downloads": ["status", "width"],
        "scores_aspect_ratio": ["aspect_ratio"],
        "duplicates": ["duplicate_of"],
    }
    assert not rules.is_global and not rules.quantiles and not rules.lists


def test_values_of_quantiles_take_part_in_the_rules() -> None:
    wanted = Quantile("aspect_ratio", 0.5, ("source",))
    rules = read_rules({"top": "aspect_ratio >= quantile(aspect_ratio, 0.5) over (partition by source)"}, SCORES)
    assert rules.is_global and rules.quantiles == [wanted]
    values = {wanted: name_quantile(wanted, [("b", 2.5), (None, 0.25), ("a", 1.5)])}
    assert list(values[wanted].items()) == [((None,), 0.25), (("a",), 1.5), (("b",), 2.5)]
    (rule,) = rules.with_quantiles(values)
    assert "'2.5'" in rule.sql and "2.5" not in rules.rules[0].sql


def test_too_many_partitions_of_a_quantile_are_refused() -> None:
    rows = [(str(number), 1.0) for number in range(MAX_PARTITIONS + 1)]
    with pytest.raises(UserError, match=r"quantile\(width, 0.5\) goes over more than 1,000 partitions by domain"):
        name_quantile(Quantile("width", 0.5, ("domain",)), rows)
