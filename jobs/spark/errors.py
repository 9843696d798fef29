"""What a Spark task raised, which reaches the driver as the text of a traceback inside an error of Spark's."""

from __future__ import annotations

import ast
import builtins
import contextlib
import errno
import importlib
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError
from pyspark.errors import PySparkException

from curation.errors import UserError
from curation.failures import STORES, describe_store_error, describe_unforeseen, is_of_store, save_trace
from curation.storage import Root
from jobs.spark.log import place_in
from jobs.spark.session import MAX_FAILURES, is_java_gone

JAVA_END_S = 5.0
TRACEBACK = "Traceback (most recent call last):\n"
_END = re.compile(r"\n+(?=\tat |JVM stacktrace:|Driver stacktrace:|Caused by: | SQLSTATE: )")
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
    """Raise the UserError or OSError that a task raised in place of the error that Spark makes of it.

    What Spark itself failed of is a UserError or OSError too, where `explain_failure` knows it.
    """
    try:
        yield
    except (Py4JError, PySparkException, ConnectionError, EOFError) as error:
        raised = raised_by_task(error)
        if raised is error:
            raised = explain_failure(error)
        if raised is error:
            raise
        raise raised from error


@contextlib.contextmanager
def keep_trace(root: Root, log: Path) -> Iterator[None]:
    """Raise UserError or OSError for whatever a stage ends of; the trace of what nobody foresaw goes to `log`."""
    try:
        with unwrap_task_errors():
            yield
    except (UserError, OSError):
        raise
    except Exception as error:  # a stage ends in one sentence, whatever went wrong; the trace is kept
        if is_of_store(error) or isinstance(error, MemoryError):
            raise
        with open(log, "a", encoding="utf-8", errors="backslashreplace") as f:
            f.writelines(traceback.format_exception(error))
        place = place_in(root, log) or save_trace(error)
        raise UserError(describe_unforeseen(describe_briefly(error), place)) from error


def explain_failure(error: Exception) -> Exception:
    """What a user can do about a failure of Spark's own processes and disks; `error` itself when it is another one."""
    # A process that was killed closes its connections a moment before it is gone.
    if is_java_gone(JAVA_END_S if isinstance(error, ConnectionError | EOFError | Py4JNetworkError) else 0.0):
        return UserError(
            "Spark's Java process has ended in the middle of the work (killed, perhaps for want of memory): nothing "
            "that was finished is lost, run the same command again."
        )
    text = str(error)
    if "Python worker exited unexpectedly" in text or "Python worker failed to connect back" in text:
        return UserError(
            f"A Python worker of Spark died {MAX_FAILURES} times at the same task (killed, perhaps for want of "
            f"memory): nothing that was finished is lost, run the same command again, with more memory or fewer cores."
        )
    if "java.lang.OutOfMemoryError" in text:
        return UserError(
            "Spark's Java process has too little memory: run the same command by spark-submit with more of it "
            "(--driver-memory 8g, --executor-memory 8g); nothing that was finished is lost."
        )
    for number in (errno.ENOSPC, errno.EMFILE):
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number), "in Spark's scratch folder, which SPARK_LOCAL_DIRS names")
    return error


def describe_briefly(error: Exception) -> str:
    """The first line of the exception that a task raised, or of what Spark says."""
    lines = (_last_line_and_more(str(error)) or str(error) or type(error).__name__).splitlines()
    shown = [line.removeprefix(": ") for line in lines if not line.startswith("An error occurred while calling")]
    return (shown or lines)[0]


def raised_by_task(error: Exception) -> Exception:
    """The UserError or OSError that a task raised, with all its lines; `error` itself when it is anything else."""
    found = parse_raised(str(error)) if isinstance(error, Py4JJavaError | PySparkException) else None
    return error if found is None else found


def parse_raised(text: str) -> UserError | OSError | None:
    """The UserError or OSError whose traceback `text` has, with all its lines; None when it is of anything else.

    A subclass of UserError becomes a UserError. An OSError has the errno, strerror and filename that it had in the
    task, and so is a PermissionError, FileNotFoundError … as there.
    """
    head = _HEAD.match(_last_line_and_more(text))
    if head is None:
        return None
    kind, message = _class(head["name"]), head["message"] or ""
    if head["name"].partition(".")[0] in STORES:
        lines = message.strip().splitlines() or [""]
        return OSError(errno.EIO, describe_store_error(head["name"].rpartition(".")[2], lines[0]))
    if kind is None:
        return None
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
