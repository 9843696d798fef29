"""Checks that run side by side, with a bar; what a check cannot read is a difference too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from curation.errors import UserError
from curation.places import ForeignPlaceError
from curation.progress import bar

Check = Callable[[], str | Iterable[str] | None]
"""Gives the differences that it finds: none, one, or several."""


def check_each(desc: str, checks: Iterable[Check]) -> Iterator[str]:
    """Yield the differences that `checks` find, in their order; hashing releases the interpreter lock."""
    listed = list(checks)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar(len(listed), desc, "file") as progress:
        try:
            for differences in pool.map(_run_check, listed):
                progress.update()
                yield from differences
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run_check(check: Check) -> list[str]:
    try:
        found = check()
        return [found] if isinstance(found, str) else list(found or ())
    except ForeignPlaceError:
        raise  # the root sends its readers elsewhere
    except (UserError, FileNotFoundError) as error:
        return [describe(error)]


def catch_errors(check: Callable[[], Iterator[str]]) -> Iterator[str]:
    """Yield the differences that `check` finds; an error that ends it is the last one."""
    try:
        yield from check()
    except ForeignPlaceError:
        raise
    except (UserError, FileNotFoundError) as error:
        yield describe(error)


def describe(error: Exception) -> str:
    """The sentence of `error`."""
    if isinstance(error, FileNotFoundError):
        return f"{error.filename or error} is missing."
    return str(error)
