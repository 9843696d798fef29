"""Formats of metadata: a module for each published set, which maps its columns to those of `samples`.

`FORMAT` in a module gives for each column of `samples` the names that the set uses for it. The case of names is ignored
and extra columns are allowed, because published copies differ (docs/architecture.md).
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from curation.errors import UserError
from curation.schema import SAMPLES, is_further_caption, name_captions

AUTO = "auto"
"""The format of a file whose recipe says itself which column is which."""
TARGETS = tuple(name for name in SAMPLES.names if name not in ("uid", "source", "domain"))
"""Columns of samples that metadata gives."""
MAX_WHOLE = 2**63
_ELEMENT = re.compile(r"(.+)\[([1-9][0-9]{0,3})\]", re.DOTALL)
MAX_SHOWN, MAX_SHOWN_CHARACTERS = 30, 60
"""Columns that a sentence names, and how much of each name."""
_UNIT_INTERVAL = {"punsafe", "pwatermark"}
_COSINES = {"clip_similarity", "clip_similarity_l14"}


@dataclass(frozen=True, kw_only=True)
class SourceFormat:
    """`columns` maps a column of `samples` to the names it may have; `marks` are columns that only this set has."""

    columns: Mapping[str, tuple[str, ...]]
    marks: tuple[str, ...]
    absent: tuple[str, ...] = field(default=())
    """Columns that show that it is another set."""
    header: tuple[str, ...] = field(default=())
    """Names of the columns of files that have none in their first line."""
    is_detected: bool = field(default=True)
    """Whether files are recognised as of this set; one with another's columns is found by its name alone."""
    only: bool = field(default=False)
    """Whether a file with further columns is of another set."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(SAMPLES.names))
        if unknown:
            raise ValueError(f"no such columns of samples: {unknown}")

    def matches(self, names: Sequence[str]) -> bool:
        lower = {n.lower() for n in names}
        if not self.is_detected or (self.only and len(names) > len(self.marks)):
            return False
        return all(m in lower for m in self.marks) and not any(a in lower for a in self.absent)


def list_formats() -> list[str]:
    """Every known format, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_format(name: str) -> SourceFormat:
    """Load the format called `name`. Raises UserError, which names the known formats."""
    if name not in list_formats():
        raise UserError(f"There is no source format {name!r}; known: auto, {', '.join(list_formats())}.")
    source: SourceFormat = importlib.import_module(f"{__name__}.{name}").FORMAT
    return source


def header_of(name: str, number: int, place: int) -> tuple[str, ...]:
    """Names of `number` columns without any, of which column `place` has URLs: those of format `name`, or of any.

    Empty when there is no such format.
    """
    names = list_formats() if name == AUTO else [name]
    headers = (load_format(one).header for one in names)
    return next((header for header in headers if len(header) == number and header[place] == "url"), ())


def detect_format(columns: Sequence[str], file: str) -> str:
    """The format with the most marks among `columns`. Raises UserError when none fits."""
    fitting = [(len(load_format(name).marks), name) for name in list_formats() if load_format(name).matches(columns)]
    if not fitting:
        raise UserError(
            f"{file} fits no known metadata schema (columns: {_list_names(columns)}); "
            f"name its format in [[sources]] ({', '.join(list_formats())}) or say which column is which: "
            f'columns = {{url = "…", caption = "…"}}.'
        )
    return max(fitting)[1]


def choose_columns(
    name: str, schema: pa.Schema, file: str, mapping: Mapping[str, Sequence[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """For each column of `samples` but uid, source and domain the file's own columns it is taken from; none of many.

    A format has one at most. `mapping` is what the recipe says instead. It may name several, of which the first that is
    not empty counts; captions after the first are also kept as `caption_2`, `caption_3` … `NAME[2]` is the second
    element of a list, unless a column is called so.

    Raises UserError when the file lacks a column that it must have, has one twice, or has it in a type that cannot be
    used.
    """
    mapped = mapping or {}
    candidates = {} if name == AUTO else load_format(name).columns
    required = {"url", *candidates.keys()} & {"url", "caption"} if candidates else {"url", "caption"}
    chosen = {}
    for target in TARGETS:
        if target in mapped:
            fields = [_find_mapped(schema, known, target, file) for known in mapped[target]]
        else:
            found = _find(schema, candidates.get(target, ()), file)
            fields = [] if found is None else [found]
            if not fields and target in required:
                raise UserError(_say_missing(schema, name, target, candidates.get(target, ()), file))
        for one in fields:
            _check_type(target, one, file)
        chosen[target] = tuple(one.name for one in fields)
    further = chosen["caption"][1:]
    return chosen | {name: (one,) for name, one in zip(name_captions(len(further) + 1)[1:], further, strict=True)}


def _list_names(names: Sequence[str]) -> str:
    """`names` for a sentence: not all of hundreds, and no line of prose that was taken for names."""
    shown = [name if len(name) <= MAX_SHOWN_CHARACTERS else f"{name[:MAX_SHOWN_CHARACTERS]}…" for name in names]
    more = f" and {len(names) - MAX_SHOWN:,} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(" ".join(name.split()) for name in shown[:MAX_SHOWN]) + more


def split_element(name: str) -> tuple[str, int]:
    """The column and the place, from 1, of `NAME[2]`. Raises ValueError for any other name."""
    found = _ELEMENT.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is no element of a list")
    return found[1], int(found[2])


def _find_element(schema: pa.Schema, name: str, file: str) -> pa.Field | None:
    """The element that `name` chooses, called as the file spells its column; None where there is no such column."""
    if not _ELEMENT.fullmatch(name):
        return None
    column, place = split_element(name)
    found = _find(schema, [column], file)
    if found is None:
        return None
    dtype = found.type.storage_type if isinstance(found.type, pa.BaseExtensionType) else found.type
    return pa.field(f"{found.name}[{place}]", dtype.value_type if is_list(dtype) else dtype)


def _find_mapped(schema: pa.Schema, known: str, target: str, file: str) -> pa.Field:
    found = _find(schema, [known], file) or _find_element(schema, known, file)
    if found is None:
        raise UserError(
            f"{file} has no column {known}, which columns in [[sources]] names for {target}; "
            f"it has {_list_names(schema.names)}."
        )
    return found


def _say_missing(schema: pa.Schema, name: str, target: str, candidates: Sequence[str], file: str) -> str:
    return (
        f"{file} has no column for {target} (expected {' or '.join(candidates) or target}; it has "
        f"{_list_names(schema.names)}): if its format is not {name}, name the right one in [[sources]], or say which "
        f'column it is: columns = {{{target} = "NAME"}}.'
    )


def _find(schema: pa.Schema, candidates: Sequence[str], file: str) -> pa.Field | None:
    """The first of `candidates` that the file has: as it is spelled, else whatever the case.

    Raises UserError when two columns answer to it.
    """
    for candidate in candidates:
        indices = [i for i, name in enumerate(schema.names) if name == candidate]
        indices = indices or [i for i, name in enumerate(schema.names) if name.lower() == candidate.lower()]
        if len(indices) > 1:
            names = " and ".join(schema.names[i] for i in indices)
            raise UserError(f"{file} has {len(indices)} columns for {candidate} ({names}): rename or drop one of them.")
        if indices:
            return schema.field(indices[0])
    return None


def is_list(dtype: pa.DataType) -> bool:
    """Whether `dtype` is a list of any kind."""
    return any(kind(dtype) for kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _check_type(target: str, field: pa.Field, file: str) -> None:
    dtype = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    dtype = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    if is_list(dtype) and target == "caption":
        dtype = dtype.value_type
    if pa.types.is_nested(dtype) or pa.types.is_list_view(dtype) or pa.types.is_interval(dtype):
        wanted = "text" if pa.types.is_string(SAMPLES.field(target).type) else "a number"
        raise UserError(
            f"{file}: column {field.name} is {field.type} and {target} needs {wanted}: take another one, or none, by "
            f"columns = {{{target} = []}} in [[sources]]."
        )


def column_expressions(name: str, schema: pa.Schema, file: str) -> dict[str, str]:
    """SQL of DuckDB over the file's own columns for each column of `samples` but uid, source and domain.

    Raises UserError as `choose_columns` does.
    """
    return {
        target: expression(target, [(f'"{_escape(known)}"', schema.field(known).type) for known in chosen])
        for target, chosen in choose_columns(name, schema, file).items()
    }


def _escape(name: str) -> str:
    return name.replace('"', '""')


def expression(target: str, columns: Sequence[tuple[str, pa.DataType]]) -> str:
    """SQL of DuckDB for column `target` of samples from `columns`, each its SQL and type: the first that is not empty.

    Sizes below 1, cosines outside [-1, 1] and probabilities outside [0, 1] (all seen in the published sets) become
    NULL. An identifier that is a whole number in a column of floats loses its `.0`.
    """
    dtype = _target_type(target)
    sql_type = {pa.string(): "varchar", pa.int32(): "integer", pa.float32(): "float"}[dtype]
    if not columns:
        return f"cast(null as {sql_type})"
    values = [_value(target, column, known) for column, known in columns]
    if len(values) == 1:
        return values[0]
    filled = [f"nullif({value}, '')" for value in values] if pa.types.is_string(dtype) else values
    return f"coalesce({', '.join(filled)})"


def _target_type(target: str) -> pa.DataType:
    return SAMPLES.field("caption" if is_further_caption(target) else target).type


def _value(target: str, column: str, known: pa.DataType) -> str:
    dtype = _target_type(target)
    if pa.types.is_string(dtype):
        text = f"cast({column} as varchar)"
        if not pa.types.is_floating(known):
            return text
        whole = f"cast(cast({column} as bigint) as varchar)"
        return f"case when abs({column}) < {MAX_WHOLE} and trunc({column}) = {column} then {whole} else {text} end"
    value = f"try_cast({column} as double)"
    if pa.types.is_integer(dtype):
        least = 0 if target == "num_faces" else 1
        return f"case when {value} >= {least} and {value} < 2147483648 then cast(trunc({value}) as integer) end"
    low, high = ("0", "1") if target in _UNIT_INTERVAL else ("-1", "1") if target in _COSINES else ("-1e30", "1e30")
    return f"case when {value} >= {low} and {value} <= {high} then cast({value} as float) end"
