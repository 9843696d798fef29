"""JSON that a root holds: a torn file, another kind of value or a nesting without end is one sentence, no traceback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from curation.errors import UserError

Kinds = Mapping[str, type | tuple[type, ...]]
"""What the fields of a record must be; further fields may be there."""
NUMBER = (int, float)
CURRENT: Kinds = {"fingerprint": str, "files": list}
PLAN: Kinds = {"batch": str, "number": int, "inputs": list, "totals": dict, "units": dict}
PLAN_INPUT: Kinds = {"source": str, "path": str, "fingerprint": str, "num_rows": int}
STAGE_CONFIG: Kinds = {"config": dict}


def parse_json(data: bytes) -> Any:
    """The value in `data`. Raises ValueError for whatever is no JSON, a nesting too deep to be read among it."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def find_fault(value: Any, kinds: Kinds) -> str | None:
    """What keeps `value` from being a record with the fields `kinds`; None when it is one."""
    if not isinstance(value, dict):
        return f"it holds {type(value).__name__}, not an object"
    for name, kind in kinds.items():
        if name not in value:
            return f"it lacks {name!r}"
        if not isinstance(value[name], kind) or isinstance(value[name], bool):
            return f"its {name!r} is of type {type(value[name]).__name__}"
    return None


def check_record(value: Any, kinds: Kinds, place: str, advice: str) -> dict[str, Any]:
    """`value`, the object in file `place`, as a record with the fields `kinds`. Raises UserError with `advice`."""
    fault = find_fault(value, kinds)
    if fault is not None:
        raise UserError(f"{place} is damaged ({fault}): {advice}.")
    record: dict[str, Any] = value
    return record


def are_counts(value: Any) -> bool:
    """Whether `value` is an object of numbers."""
    return isinstance(value, dict) and all(isinstance(count, int) for count in value.values())
