"""Metadata schemas in, one set of columns out: a file here for each published set.

`FORMAT` in a module maps the columns of `samples` to the names that the set gives them. Names are matched without
regard to case and extra columns are tolerated, because published copies differ (docs/architecture.md).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from curation.errors import UserError
from curation.schema import SAMPLES

REQUIRED = ("url",)
_UNIT_INTERVAL = {"punsafe", "pwatermark"}
_COSINES = {"clip_similarity", "clip_similarity_l14"}


@dataclass(frozen=True, kw_only=True)
class SourceFormat:
    """`columns` maps a column of `samples` to the names it may have; `marks` tell this set from the others."""

    columns: Mapping[str, tuple[str, ...]]
    marks: tuple[str, ...]
    absent: tuple[str, ...] = field(default=())
    """Columns that show that it is another set."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(SAMPLES.names))
        if unknown:
            raise ValueError(f"no such columns of samples: {unknown}")

    def matches(self, names: Sequence[str]) -> bool:
        lower = {n.lower() for n in names}
        return all(m in lower for m in self.marks) and not any(a in lower for a in self.absent)


def list_formats() -> list[str]:
    """Every known format, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_format(name: str) -> SourceFormat:
    """The format called `name`. Raises UserError naming the known ones."""
    if name not in list_formats():
        raise UserError(f"There is no source format {name!r}; known: auto, {', '.join(list_formats())}.")
    source: SourceFormat = importlib.import_module(f"{__name__}.{name}").FORMAT
    return source


def detect_format(columns: Sequence[str], file: str) -> str:
    """The format with the most marks among `columns`. Raises UserError when none fits."""
    fitting = [(len(load_format(name).marks), name) for name in list_formats() if load_format(name).matches(columns)]
    if not fitting:
        raise UserError(
            f"{file} fits no known metadata schema (columns: {', '.join(columns)}); "
            f"name its format in [[sources]]: {', '.join(list_formats())}."
        )
    return max(fitting)[1]


def _found(schema: pa.Schema, candidates: Sequence[str]) -> pa.Field | None:
    by_lower = {name.lower(): name for name in schema.names}
    for candidate in candidates:
        if candidate.lower() in by_lower:
            return schema.field(by_lower[candidate.lower()])
    return None


def column_expressions(name: str, schema: pa.Schema, file: str) -> dict[str, str]:
    """SQL over the file's own columns for each column of `samples` but uid, source and domain.

    Sizes below 1, cosines outside [-1, 1] and probabilities outside [0, 1] (all seen in the published sets) become
    NULL. Raises UserError when the file lacks a required column.
    """
    source = load_format(name)
    result = {}
    for target in SAMPLES.names:
        if target in ("uid", "source", "domain"):
            continue
        candidates = source.columns.get(target, ())
        found = _found(schema, candidates)
        if found is None and (target in REQUIRED or target == "caption"):
            raise UserError(
                f"{file} has no column for {target} (expected {' or '.join(candidates) or target}; "
                f"it has {', '.join(schema.names)}): is its format really {name}?"
            )
        result[target] = _expression(target, found)
    return result


def _expression(target: str, found: pa.Field | None) -> str:
    dtype = SAMPLES.field(target).type
    sql_type = {pa.string(): "string", pa.int32(): "int", pa.float32(): "float"}[dtype]
    if found is None:
        return f"cast(null as {sql_type})"
    column = f"`{found.name}`"
    if pa.types.is_string(dtype):
        return f"cast({column} as string)"
    if pa.types.is_integer(dtype):
        value = f"try_cast({column} as double)"
        least = 0 if target == "num_faces" else 1
        return f"case when {value} >= {least} and {value} < 2147483648 then cast({value} as int) end"
    value = f"try_cast({column} as double)"
    low, high = ("0", "1") if target in _UNIT_INTERVAL else ("-1", "1") if target in _COSINES else ("-1e30", "1e30")
    return f"case when {value} >= {low} and {value} <= {high} then cast({value} as float) end"
