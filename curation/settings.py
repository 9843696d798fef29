"""TOML into frozen dataclasses: unknown keys are refused, `--set section.key=value` overrides.

Shared by the recipe (curation/recipe/config.py), the filters' options and the trainer's configuration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from curation.errors import UserError

T = TypeVar("T")
Range = tuple[float, float]
MAX_DEPTH = 32
"""Values inside of each other that a file may have; settings need six."""
TOO_DEEP = "its values are nested too deeply"


def setting(default: T, *, content: bool, between: Range | None = None) -> T:
    """A field of a section of the recipe. A dict as default is copied for each section.

    `content` says whether it decides what a stage writes: a table that was begun with one value is then not continued
    with another, and a version that was made with another is made again. The other settings say how fast and how
    patiently a stage works, and may change between runs. A value outside `between` (both ends included; None and
    every value of another type are none) is refused by `check_ranges`.
    """
    metadata = {"content": content, "between": between}
    if isinstance(default, dict):
        field: T = dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    else:
        field = dataclasses.field(default=default, metadata=metadata)
    return field


def required_setting(*, content: bool) -> Any:
    """As `setting`, for a field that has no default."""
    return dataclasses.field(metadata={"content": content, "between": None})


def check_ranges(section: Any) -> None:
    """Raise ValueError for a setting of `section` that lies outside its range."""
    for field in dataclasses.fields(section):
        value, between = getattr(section, field.name), field.metadata.get("between")
        if between is not None and value is not None and not between[0] <= value <= between[1]:  # nan lies in none
            raise ValueError(f"{field.name} must lie in {between[0]}..{between[1]}, not {value}")


def content_settings(section: Any) -> dict[str, Any]:
    """Those settings of `section` that decide content, as plain values."""
    return {f.name: to_dict(getattr(section, f.name)) for f in dataclasses.fields(section) if f.metadata["content"]}


def read_toml(path: str | Path) -> dict[str, Any]:
    """The parsed TOML file; UserError when it is missing or not TOML."""
    try:
        return _check_depth(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}: name an existing TOML file.") from error
    except RecursionError as error:
        raise UserError(f"{path} is not readable TOML: {TOO_DEEP}.") from error
    except (ValueError, OSError) as error:  # TOML's own errors, bytes that are no text, numbers of 5,000 digits
        raise UserError(f"{path} is not readable TOML: {error}.") from error


def _check_depth(data: dict[str, Any]) -> dict[str, Any]:
    """`data`. Raises ValueError when values lie in more than MAX_DEPTH others; a key of 10,000 dots is no recursion."""
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _values_in(value)]
        if not level:
            return data
    raise ValueError(TOO_DEEP)


def _values_in(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def find_config(path: str | Path, shipped: Path, kind: str) -> Path:
    """The TOML file: `path` itself, or the file of that name in the folder `shipped`.

    Raises:
        UserError: when there is neither; `kind` is what the message calls the file ("recipe").
    """
    if Path(path).is_file():
        return Path(path)
    file = shipped / f"{Path(path).name.removesuffix('.toml')}.toml"
    if file.exists():
        return file
    names = ", ".join(sorted(p.stem for p in shipped.glob("*.toml")))
    raise UserError(f"There is no {kind} {path}: name a TOML file or a shipped one ({names}).")


def parse_value(text: str) -> Any:
    """A TOML value, or the text itself when it is none: `3` → 3, `[1]` → [1], `foo bar` → 'foo bar'."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # TOML's own, a number of more digits than Python reads, brackets without end
        return text


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with each `section.key=value` set; `sources.0.key` indexes into a list."""
    result: dict[str, Any] = _copy(data)
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path.strip():
            raise UserError(f"--set {override!r} is not of the form section.key=value.")
        *parents, last = path.strip().split(".")
        if len(parents) > MAX_DEPTH:
            raise UserError(f"--set {override[:80]!r}…: {TOO_DEEP}.")
        node: Any = result
        for name in parents:
            node = _child(node, name, override)
        if isinstance(node, list):
            node[_index(node, last, override)] = parse_value(text)
        elif isinstance(node, dict):
            node[last] = parse_value(text)
        else:
            raise UserError(f"--set {override!r}: {'.'.join(parents)} is a value, not a section.")
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _index(node: list[Any], name: str, override: str) -> int:
    if not name.isdecimal() or int(name) >= len(node):
        raise UserError(f"--set {override!r}: {name} is not an index below {len(node)}.")
    return int(name)


def _child(node: Any, name: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, name, override)]
    if not isinstance(node, dict):
        raise UserError(f"--set {override!r}: {name} lies inside a value, not a section.")
    return node.setdefault(name, {})


def from_dict(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """Build dataclass `cls` from `data`, recursing into dataclass fields.

    `where` names the place in messages ("[download] of recipe.toml"). Raises UserError for an unknown key (naming
    the allowed ones), a missing required one, a wrong type, or whatever `__post_init__` refuses by ValueError.
    """
    if not isinstance(data, Mapping):
        raise UserError(f"{where} must be a section of key = value lines, not {data!r}.")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]  # T is a dataclass
    for key in data:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"Unknown key {key!r} in {where}{hint}; allowed: {', '.join(sorted(fields))}.")
    missing = [n for n, f in fields.items() if n not in data and _is_required(f)]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}.")
    values = {k: convert(v, hints[k], f"{k} in {where}") for k, v in data.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as type `hint` (scalars, tuples, dicts, optionals, literals, dataclasses), or UserError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{where} is {value!r}; allowed: {', '.join(map(repr, arguments))}.")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list, not {value!r}.")
        inner = arguments if origin is tuple and Ellipsis not in arguments else (arguments[0],) * len(value)
        if len(inner) != len(value):
            raise UserError(f"{where} must hold {len(inner)} values, not {len(value)}.")
        return origin(convert(v, h, where) for v, h in zip(value, inner, strict=True))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where} must be a section of key = value lines, not {value!r}.")
        return {k: convert(v, arguments[1], f"{k} in {where}") for k, v in value.items()}
    return _convert_scalar(value, hint, where)


def _convert_union(value: Any, arguments: tuple[Any, ...], where: str) -> Any:
    if value is None:
        return None
    errors = []
    for hint in arguments:
        if hint is type(None):
            continue
        try:
            return convert(value, hint, where)
        except UserError as error:
            errors.append(error)
    raise errors[-1]


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", str(hint))
    raise UserError(f"{where} must be of type {name}, not {value!r}.")


def to_dict(config: Any) -> Any:
    """Dataclasses, tuples and dicts as plain JSON-able values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(v) for v in config]
    return config
