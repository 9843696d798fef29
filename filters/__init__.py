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
from filters.base import Filter

__all__ = ["Filter", "build", "names"]


def names() -> list[str]:
    """Sorted names of the filters: the modules in this folder, `base` and names that begin with `_` aside."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))  # in a zip too, as --py-files ships it
    return sorted(name for name in modules if name != "base" and not name.startswith("_"))


def build(name: str, options: Mapping[str, Any], resolve: Callable[[str], str] = str) -> Filter:
    """The filter `name` with `options`; `resolve` makes its file options full paths (`Recipe.resolve`).

    Raises UserError for an unknown filter, an unknown option (naming the allowed ones) or a bad value.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"There is no filter {name!r}{hint}; filters: {', '.join(names())}.")
    cls: type[Filter] = importlib.import_module(f"filters.{name}").FILTER
    full = {key: resolve(value) if key in cls.files else value for key, value in dict(options).items()}
    return from_dict(cls, full, f"[filters.{name}]")
