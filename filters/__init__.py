"""Quality filters: one file each, `filters/NAME.py` with `FILTER = TheClass`. A file dropped here is a filter.

`names()` lists them, `build("aspect_ratio", {})` makes one from the options of a recipe's `[filters]` section.
Importing this package needs neither Spark nor torch, and imports no filter.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from curation.errors import UserError
from curation.settings import from_dict
from filters._named import NAME, rename_filter
from filters.base import Filter

__all__ = ["Filter", "build", "names"]

KIND = "filter"
"""The option that says which filter one of another name is."""


def names() -> list[str]:
    """Sorted names of the filters: the modules in this folder, `base` and names that begin with `_` aside."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))  # in a zip too, as --py-files ships it
    return sorted(name for name in modules if name != "base" and not name.startswith("_"))


def build(name: str, options: Mapping[str, Any], resolve: Callable[[str], str] = str) -> Filter:
    """The filter `name` with `options`; `resolve` makes its file options full paths (`Recipe.resolve`).

    With an option `filter` it is that filter under the name `name`, which its columns are called by then.
    Raises UserError for an unknown filter, an unknown option (naming the allowed ones) or a bad value.
    """
    given = dict(options)
    kind = given.pop(KIND, name)
    if kind not in names():
        close = difflib.get_close_matches(str(kind), names(), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"There is no filter {kind!r}{hint}; filters: {', '.join(names())}.")
    cls: type[Filter] = importlib.import_module(f"filters.{kind}").FILTER
    if kind != name:
        cls = _rename(cls, name)
    full = {key: resolve(value) if key in cls.files else value for key, value in given.items()}
    return from_dict(cls, full, f"[filters.{name}]")


def _rename(cls: type[Filter], name: str) -> type[Filter]:
    if not NAME.fullmatch(name):
        raise UserError(f"[filters.{name}]: a filter's name has small letters, digits and _ only: rename it.")
    try:
        return rename_filter(cls, name)
    except TypeError as error:
        raise UserError(f"[filters.{name}] would be called by the name of another column: rename it.") from error
