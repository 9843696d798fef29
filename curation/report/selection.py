"""What the current selection records of itself: its rules in their order, and the quantiles that they compare with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from curation.recipe.expressions import Quantile, QuantileValues
from curation.storage import Root
from curation.tables import SELECTION

_OF_CONCEPTS = re.compile(r"\bpartition\s+by\b[^)]*\bconcept\b|\bbalance\s*\(", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The current selection: `fingerprint` names it, `rules` are its rules by name, in their order."""

    fingerprint: str
    rules: dict[str, str]

    @property
    def balancing(self) -> str | None:
        """The first rule that limits the rows of a concept; None when no rule does."""
        return next((name for name, text in self.rules.items() if _OF_CONCEPTS.search(text)), None)


def read_selected(root: Root) -> Selected | None:
    """The current selection; None when there is none yet."""
    current = root.current(SELECTION)
    if current is None:
        return None
    config = _read_config(current)
    rules = config.get("rules")
    texts = {str(name): str(text) for name, text in rules.items()} if isinstance(rules, dict) else {}
    order = config.get("order")
    names = [name for name in order if name in texts] if isinstance(order, list) else sorted(texts)
    return Selected(fingerprint=current["fingerprint"], rules={name: texts[name] for name in names})


def _read_config(current: dict[str, Any]) -> dict[str, Any]:
    config = current.get("config")
    return config if isinstance(config, dict) else {}


def read_quantiles(root: Root) -> dict[Quantile, QuantileValues]:
    """The quantiles that the current selection has recorded."""
    recorded = _read_config(root.current(SELECTION) or {}).get("quantiles", [])
    found = dict[Quantile, dict[tuple[str | None, ...], float | None]]()
    for item in recorded:
        by: dict[str, str | None] = item.get("by", {})
        found.setdefault(Quantile(item["column"], item["share"], tuple(by)), {})[tuple(by.values())] = item["value"]
    return dict(found)
