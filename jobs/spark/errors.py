"""What a Spark task raised, which reaches the driver as the text of a traceback inside an error of Spark's."""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import re
from collections.abc import Iterator

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from curation.errors import UserError

TRACEBACK = "Traceback (most recent call last):\n"
_END = re.compile(r"\n+(?=\tat |JVM stacktrace:|Driver stacktrace:|Caused by: )")
_CHAINED = re.compile(
    r"\n\n(?:The above exception was the direct cause of|During handling of the above exception, another)"
    r"[^\n]*exception(?: occurred)?:\n\n(?=Traceback \(most recent call last\):\n)"
)
_HEAD = re.compile(r"^(?P<name>[A-Za-z_][\w.<>]*)(?:: (?P<message>.*))?$", re.DOTALL)
_ERRNO = re.compile(r"\[Errno (?P<errno>-?\d+)\] (?P<rest>.*)", re.DOTALL)
_NAME = r"""b?(?:'.*?'|".*?")"""
_FILES = re.compile(rf"(?P<strerror>.*?): (?P<first>{_NAME})(?: -> (?P<second>{_NAME}))?", re.DOTALL)


@contextlib.contextmanager
def unwrap_task_errors() -> Iterator[None]:
    """Raise the UserError or OSError that a task raised in place of the error that Spark makes of it."""
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        raised = raised_by_task(error)
        if raised is error:
            raise
        raise raised from error


def raised_by_task(error: Exception) -> Exception:
    """The UserError or OSError that a task raised, with all its lines; `error` itself when it is anything else.

    A subclass of UserError becomes a UserError. An OSError has the errno, strerror and filename that it had in the
    task, and so is a PermissionError, FileNotFoundError … as there.
    """
    if not isinstance(error, Py4JJavaError | PySparkException):
        return error
    head = _HEAD.match(_last_line_and_more(str(error)))
    if head is None:
        return error
    kind, message = _class(head["name"]), head["message"] or ""
    if kind is None:
        return error
    return UserError(message) if issubclass(kind, UserError) else _os_error(kind, message)


def _last_line_and_more(text: str) -> str:
    """Of the first traceback in `text`, the exception itself: its class and all lines of its message."""
    _, found, rest = text.partition(TRACEBACK)
    whole = _CHAINED.split(_END.split(rest, maxsplit=1)[0])[-1].removeprefix(TRACEBACK) if found else ""
    lines = whole.split("\n")
    first = next((i for i, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    return "\n".join(lines[first:]).rstrip("\n")


def _class(name: str) -> type[UserError | OSError] | None:
    """The class of that dotted name, None when it is neither of our two kinds."""
    module, _, last = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else builtins, last, None)
    except ImportError:
        return None
    is_ours = isinstance(found, type) and issubclass(found, UserError | OSError)
    return found if is_ours else None


def _os_error(kind: type[OSError], message: str) -> OSError:
    numbered = _ERRNO.fullmatch(message)
    if numbered is None:
        return kind(message) if kind.__module__ == "builtins" else OSError(message)
    files = _FILES.fullmatch(numbered["rest"])
    if files is None:
        return OSError(int(numbered["errno"]), numbered["rest"])
    names = [None if text is None else ast.literal_eval(text) for text in (files["first"], files["second"])]
    return OSError(int(numbered["errno"]), files["strerror"], names[0], None, names[1])
