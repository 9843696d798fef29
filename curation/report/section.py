"""The sections of a report: a module each in `sections/`, found without a list."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from curation.report import sections
from curation.report.facts import Facts


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page below its heading `title`; `place` orders the parts, the least first.

    `render` gives the part as HTML. What it reads may be absent: it says so in a sentence.
    """

    title: str
    place: int
    render: Callable[[Facts], str]


def find_sections() -> list[Section]:
    """The `SECTION` of every module in `sections/`, in the order of the page."""
    names = [module.name for module in pkgutil.iter_modules(sections.__path__)]
    found = [importlib.import_module(f"{sections.__name__}.{name}").SECTION for name in names]
    return sorted(found, key=lambda section: (section.place, section.title))
