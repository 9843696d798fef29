"""Whether a version of a table was made from what the root holds now: `current.json` records what it was made from.

Inputs are recorded by their content. Earlier versions of this project recorded names and sizes; those are compared as
they were recorded, so that their roots are not made anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from curation.errors import UserError
from curation.records import STAGE_CONFIG
from curation.storage import CONFIG, Root, canonical_json, fingerprint
from curation.tables import (
    BY_CONTENT,
    DOWNLOADS,
    DUPLICATES,
    METADATA,
    SAMPLES,
    SCORES,
    SELECTION,
    TRAIN_INDEX,
    VECTORS,
    fingerprint_sizes,
    fingerprint_table,
    vector_sizes,
)

MADE_BY = {DUPLICATES: "dedupe", SELECTION: "select", TRAIN_INDEX: "pack"}
"""Versioned table → the command that makes it, in the order of a run."""
VECTORS_INPUT = "vectors"
"""Names among the inputs of duplicates the vectors and the model that made them."""


def find_mixed(root: Root, tables: Collection[str] = tuple(MADE_BY)) -> Iterator[str]:
    """A sentence for each of `tables` that was made from another version of a table than the current one."""
    for table in (table for table in MADE_BY if table in tables):
        recorded = _recorded_inputs(root, table)
        changed = [name for name in recorded if name in MADE_BY and _is_other_version(root, name, recorded[name])]
        if changed:
            yield _describe(table, changed, MADE_BY[table])


def find_stale(root: Root) -> Iterator[str]:
    """As `find_mixed`, and for each versioned table whose unit tables hold something else now. Reads those tables."""
    known = Fingerprints(root)
    for table in MADE_BY:
        yield from describe_changes(known, table)


def find_stale_by_ledgers(root: Root) -> Iterator[str]:
    """As `find_stale`, but no table is read: in a root that is not sealed, only as `find_mixed`."""
    is_sealed = root.exists("root.json") and root.record().sums is not None
    yield from find_stale(root) if is_sealed else find_mixed(root)


def describe_changes(known: Fingerprints, table: str) -> Iterator[str]:
    """A sentence when `table` was made from something else than the root holds now."""
    recorded = _recorded_inputs(known.root, table)
    changed = [name for name, value in recorded.items() if not known.holds(name, value)]
    if changed:
        yield _describe(table, changed, MADE_BY[table])


def check_fresh(known: Fingerprints, table: str) -> None:
    """Raise UserError, naming the command to run, when `table` was made from something else than the root holds now."""
    for sentence in describe_changes(known, table):
        raise UserError(sentence)


def check_not_mixed(root: Root, tables: Collection[str]) -> None:
    """Raise UserError, naming the root and the command to run, for the first sentence of `find_mixed`."""
    for sentence in find_mixed(root, tables):
        raise UserError(f"{root.base}: {sentence}")


class Fingerprints:
    """What the tables of `root` hold now; each is read once."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._known: dict[str, str] = {}

    def of(self, table: str) -> str:
        """See `curation.tables.fingerprint_table`."""
        if table not in self._known:
            self._known[table] = fingerprint_table(self.root, table)
        return self._known[table]

    def of_vectors(self, made_by: str) -> str:
        """Fingerprint of the vectors and of the model that made them."""
        return f"{BY_CONTENT}{fingerprint([self.of(VECTORS), made_by])}"

    def holds(self, name: str, recorded: Any) -> bool:
        """Whether input `name` is what was recorded of it. What is not in the root is taken to be."""
        if name in MADE_BY:
            return not _is_other_version(self.root, name, recorded)
        if name == VECTORS_INPUT:
            return self._holds_vectors(recorded)
        if not _is_table(name):
            return True
        if recorded == self.of(name):
            return True
        return not str(recorded).startswith(BY_CONTENT) and recorded == fingerprint_sizes(self.root, name)

    def _holds_vectors(self, recorded: Any) -> bool:
        rel = f"{METADATA}/{CONFIG}"
        if not self.root.exists(rel):
            return True  # nobody wrote down which model made them
        made_by = self.root.read_record(rel, STAGE_CONFIG)["config"].get("model")
        if str(recorded).startswith(BY_CONTENT):
            return bool(recorded == self.of_vectors(made_by))
        return bool(recorded == fingerprint([vector_sizes(self.root), made_by]))

    def is_current(self, table: str, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
        """Whether the current version of `table` was made with the settings in `config`, and from `inputs`."""
        current = self.root.current(table)
        if current is None:
            return False
        wanted, recorded = json.loads(canonical_json(config)), _recorded_inputs(self.root, table)
        if any(current["config"].get(key) != value for key, value in wanted.items()):
            return False
        return recorded.keys() == inputs.keys() and all(
            recorded[name] == value or (_is_of_sizes(name, recorded[name]) and self.holds(name, recorded[name]))
            for name, value in inputs.items()
        )


def _is_of_sizes(name: str, recorded: Any) -> bool:
    """Whether `recorded` may be what earlier versions recorded of the table `name`; lists and folders are no tables."""
    return _is_table(name) and isinstance(recorded, str) and not recorded.startswith(BY_CONTENT)


def _is_table(name: str) -> bool:
    return name in (*MADE_BY, VECTORS_INPUT, SAMPLES, DOWNLOADS, METADATA) or name.startswith(SCORES)


def _recorded_inputs(root: Root, table: str) -> dict[str, Any]:
    inputs = (root.current(table) or {}).get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def _is_other_version(root: Root, table: str, recorded: Any) -> bool:
    return bool((root.current(table) or {}).get("fingerprint") != recorded)


def _describe(table: str, changed: Iterable[str], command: str) -> str:
    return f"{table} was made from other {' and '.join(changed)} than the root has now: run `curate {command}`."
