"""The door of every command: its exit status, one sentence on standard error for whatever ends it, and its end."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from curation.errors import UserError
from curation.failures import describe_failure
from curation.terminal import write_error

BROKEN_PIPE = 141
"""What a shell shows of a program that SIGPIPE ended."""


def run_guarded(action: Callable[[], int | None], prefix: str = "", *, tells_refusals: bool = True) -> int:
    """Exit status of `action`: its own, 2 with one sentence for an error, 130 when interrupted, 141 when unread.

    `prefix` stands before the sentence. Without `tells_refusals` another process says what a UserError says.
    """
    try:
        status = action() or 0
        sys.stdout.flush()  # a full disk or a closed pipe under it is an end of the command as any other
    except UserError as error:
        if tells_refusals:
            write_error(f"{prefix}{error}\n")
        return 2
    except BrokenPipeError:  # whoever read has had enough: `curate query … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # whoever runs a command is told in one sentence, whatever ended it
        write_error(f"{prefix}{describe_failure(error)}\n")
        return 2
    except KeyboardInterrupt:
        write_error(f"{prefix}interrupted; run the same command again to go on.\n")
        return 130
    return status


def run_program(main: Callable[[], int | None]) -> NoReturn:
    """Be the program `main`: end this process with the status that it returns or exits with, as `end_process` does."""
    try:
        status = main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            raise
        status = ended.code
    end_process(status or 0)


def end_process(status: int) -> NoReturn:
    """End this process with `status` after its other threads and exit handlers, but without Python's own clean-up.

    Threads of libraries outlive what they were asked for: one of Arrow drops the last bytes of a Python file that it
    read, one of DeepSpeed the tensors of its last collective. Before Python 3.14, a thread that asks for Python while
    Python is on its way out is unwound through C++, which ends the process with abort(), and a command that went well
    with status -6 (https://github.com/python/cpython/issues/87135).
    """
    # As Python at its end: it tells the pools of concurrent.futures to stop, and waits for threads that are no daemons.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    logging.shutdown()
    leave_process(status)


def leave_process(status: int) -> NoReturn:
    """End this process with `status` once what it said is written, without its threads, exit handlers and clean-up."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it, or there is no room: `run_guarded` has said so
            stream.flush()
    os._exit(status)
