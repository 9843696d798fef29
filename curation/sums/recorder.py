"""What one process publishes, noted as it does: for stages that run without Spark, and the driver's side of others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from curation.errors import UserError
from curation.storage import Root
from curation.sums.cover import expand_tables
from curation.sums.ledger import Ledger, Sum
from curation.sums.seal import is_sealed, open_entries, open_files, open_missing, seal_tables


class LocalRecorder:
    """Notes what the threads of this process publish; opens the entry of a file before it is replaced."""

    def __init__(self, root: Root) -> None:
        self.own: dict[str, Sum] = {}
        self._root = root
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskRecorder, ()

    @property
    def recorded(self) -> dict[str, Sum]:
        """What was published so far."""
        return self.own

    def begin(self, rel: str, found: Sum) -> None:
        """Open the entry of `rel` where it has one that `found` does not fulfil."""
        with self._lock:
            expected = self._root.expected(rel)
            if expected is not None and expected.sha256 is not None and expected != found:
                open_files(self._root, [rel])

    def discard(self, rel: str) -> None:
        """Open the entries of `rel`, a file or folder that is about to be deleted."""
        table = rel.partition("/")[0]
        with self._lock:
            open_entries(self._root, lambda one: one == rel or one.startswith(f"{rel}/"), [table])

    def end(self, rel: str, found: Sum) -> None:
        """Note that `rel` holds `found`."""
        with self._lock:
            self.own[rel] = found


def list_recorded(root: Root) -> Ledger:
    """What this process, and tasks that work for it, have published by `root` so far, where that has a recorder."""
    return root.recorder.recorded if isinstance(root.recorder, LocalRecorder) else {}


class TaskRecorder:
    """Notes what another process publishes. Entries that it fulfils anew were opened by the driver."""

    def __init__(self) -> None:
        self.published: dict[str, Sum] = {}

    def begin(self, rel: str, found: Sum) -> None:
        """Nothing to do."""

    def discard(self, rel: str) -> None:
        """Nothing to do."""

    def end(self, rel: str, found: Sum) -> None:
        """Note that `rel` holds `found`, for whoever is told when the task has ended."""
        self.published[rel] = found


@contextmanager
def sealing(
    root: Root, tables: Iterable[str], make_recorder: Callable[[Root], LocalRecorder] = LocalRecorder
) -> Iterator[Root]:
    """The root to publish by; at the end `tables` are sealed, also with what was published before an error.

    "scores_" stands for every table of scores.
    """
    recorder, listed = make_recorder(root), list(tables)
    if is_sealed(root):
        open_missing(root, expand_tables(root, listed))
    try:
        yield root.recording(recorder)
    except BaseException:
        with suppress(OSError, UserError):
            _seal(root, listed, recorder)
        raise
    _seal(root, listed, recorder)


def _seal(root: Root, tables: list[str], recorder: LocalRecorder) -> None:
    if is_sealed(root):
        seal_tables(root, expand_tables(root, tables), recorder.recorded)
