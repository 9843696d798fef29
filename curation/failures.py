"""One sentence for whatever ends a command: what is wrong and what to do, never a traceback."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback

RESUME = "nothing finished was lost, run the same command again"
STORES = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs", "urllib3")
"""Packages whose exceptions come from the client of an object store."""


def describe_failure(error: BaseException) -> str:
    """The sentence for `error`, which is no UserError; the trace of what nobody foresaw is kept in a file."""
    if isinstance(error, OSError):
        return describe_os_error(error)
    if is_of_store(error):
        return f"{describe_store_error(type(error).__name__, first_line(error))}; {RESUME}."
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return f"There is too little memory ({first_line(error)}); {RESUME}, with more of it."
    named = f"{type(error).__name__}: {first_line(error)}" if str(error) else type(error).__name__
    return describe_unforeseen(named, save_trace(error))


def describe_os_error(error: OSError) -> str:
    """The reason and the file, where the error has them."""
    place = f" ({error.filename})" if error.filename else ""
    more = ""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        more = " allow more of them (`ulimit -n 4096`);"
    elif isinstance(error, PermissionError):
        more = " give this account the right to it;"
    return f"{error.strerror or first_line(error)}{place};{more} {RESUME}."


def describe_store_error(name: str, message: str) -> str:
    """What the client of an object store says by an exception called `name`, and what to do."""
    if "Credential" in name or "Unauthorized" in name:
        return f"The object store needs credentials ({message}): set them in the environment (AWS_ACCESS_KEY_ID …)"
    return f"The object store does not answer as it should ({message})"


def is_of_store(error: BaseException) -> bool:
    """Whether the client of an object store raised `error`."""
    return type(error).__module__.partition(".")[0] in STORES


def first_line(error: BaseException) -> str:
    """The first line of what the error says; its name when it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def describe_unforeseen(what: str, place: str) -> str:
    """The sentence for an error that no code expects; `place` is the file that has its trace."""
    kept = f"the whole trace is in {place}, please report it" if place else "please report it"
    return f"This should not have happened ({what}): {kept}; {RESUME}."


def save_trace(error: BaseException) -> str:
    """Write the trace of `error` to a file that only this user can read; its path, empty when no disk takes it."""
    try:
        descriptor, path = tempfile.mkstemp(prefix="clip-curation-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as f:
            f.writelines(traceback.format_exception(error))
    except OSError:
        return ""
    return path
