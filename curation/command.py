"""The door of every command: its exit status, and one sentence on standard error for whatever ends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

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
        return action() or 0
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
