"""`curate browse` as a process of its own, on a free port of loopback."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from curation.storage import Root
from tests.support.documents import PROJECT


@dataclass
class Served:
    """The address of the page with its token, and the process that serves it."""

    address: str
    process: subprocess.Popen[str]

    @property
    def origin(self) -> str:
        """The address without the token."""
        return "/".join(self.address.split("/")[:3])

    def interrupt(self) -> tuple[int, str]:
        """The exit status after Ctrl-C, and what was said on standard error."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=120)
        return self.process.returncode, said


def start_browse(root: Root, *options: str) -> subprocess.Popen[str]:
    """The process, which may refuse."""
    words = [sys.executable, "-m", "jobs.cli", "browse", root.base, *options]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT)


@contextmanager
def serve_browse(root: Root, *options: str) -> Iterator[Served]:
    """The page of `root`; it has ended after the block."""
    with start_browse(root, *options) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), process.stderr.read()
            yield Served(address, process)
        finally:
            process.kill()
