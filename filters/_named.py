"""A filter under another name, so that a recipe has several of a kind: `[filters.NAME] filter = "zero_shot"`."""

from __future__ import annotations

import functools
import re
from typing import Any

import pyarrow as pa

from filters.base import Filter

NAME = re.compile(r"[a-z][a-z0-9_]*")


@functools.cache
def rename_filter(cls: type[Filter], name: str) -> type[Filter]:
    """`cls` with columns of other names: its only one is called `name`, each of several `name`_COLUMN.

    Raises TypeError when such a column exists already.
    """
    columns = list(cls.writes)
    renamed = [field.with_name(name if len(columns) == 1 else f"{name}_{field.name}") for field in columns]

    def __reduce__(self: Filter) -> tuple[Any, ...]:  # noqa: N807  # the class itself cannot be imported by a task
        return _restore, (cls, name, self.__dict__)

    found: type[Filter] = type(cls.__name__, (cls,), {"writes": pa.schema(renamed), "__reduce__": __reduce__})
    return found


def _restore(cls: type[Filter], name: str, state: dict[str, Any]) -> Filter:
    renamed = rename_filter(cls, name)
    item = renamed.__new__(renamed)
    item.__dict__.update(state)
    return item
