"""The file that takes what Spark's processes print during one command, so that a terminal shows only our own lines.

Spark's Java process and the Python workers that it starts write to the streams of whoever starts it. Here these are a
file in ROOT/logs/spark, which stays when it says more than Spark says at every start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from curation.storage import Root

FOLDER = "logs/spark"
MAX_READ_BYTES = 1 << 20
_START = re.compile(
    r"WARNING: |Picked up |Using Spark's |Setting default log level|To adjust logging level|NOTE: |:: |\s*$"
)
"""What the lines of every start begin with."""


@contextlib.contextmanager
def open_log(root: Root) -> Iterator[Path]:
    """A local file for what Spark prints while stages of `root` run.

    Before there is a root, and for a root on an object store, it lies in a temporary folder that only this user can
    read; in the end it is moved into the root. Without a root to move it to it is deleted.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    with _open_folder(root) as folder:
        path = folder / name
        path.touch()
        try:
            with _take_logging(path):
                yield path
        finally:
            _keep(root, path)


@contextlib.contextmanager
def _open_folder(root: Root) -> Iterator[Path]:
    """The folder of the log; what is empty of it in the end is deleted."""
    if root.is_local and root.exists("root.json"):
        folder = Path(root.path, FOLDER)
        made = [place for place in (folder, folder.parent) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):  # it is not empty
                for place in made:
                    place.rmdir()
    else:
        folder = Path(tempfile.mkdtemp(prefix="clip-curation-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _take_logging(path: Path) -> Iterator[None]:
    """Let what py4j and pyspark log go to `path`: of a Java process that is gone they print one traceback a call."""
    handler = logging.FileHandler(path, delay=True)

    def keep_of_client(record: logging.LogRecord) -> bool:
        """What py4j logs to the root logger too, as it does of a call whose answer never came."""
        if "py4j" not in Path(record.pathname).parts:
            return True
        handler.handle(record)
        return False

    loggers = [logging.getLogger(name) for name in ("py4j", "pyspark")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    root = logging.getLogger()
    root.addFilter(keep_of_client)
    try:
        yield
    finally:
        root.removeFilter(keep_of_client)
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
        handler.close()


def _keep(root: Root, path: Path) -> None:
    """Leave the log in the root when it says anything; it must not hide why the command ended."""
    with contextlib.suppress(Exception):
        if not says_anything(path):
            path.unlink()
        elif not (root.is_local and path.is_relative_to(root.path)) and root.exists("root.json"):
            root.publish(f"{FOLDER}/{path.name}", path)


def says_anything(path: Path) -> bool:
    """Whether the log has lines that not every start of Spark has."""
    return any(not _START.match(line) for line in read_end(path).splitlines())


def read_end(path: Path) -> str:
    """The end of the log."""
    with open(path, "rb") as f:
        f.seek(max(0, path.stat().st_size - MAX_READ_BYTES))
        return f.read().decode("utf-8", "replace")


def place_in(root: Root, path: Path) -> str:
    """Where a user finds the log `path` once the command has ended; the empty text where there will be none."""
    if root.is_local and path.is_relative_to(root.path):
        return str(path)
    with contextlib.suppress(Exception):
        return root.url(f"{FOLDER}/{path.name}") if root.exists("root.json") else ""
    return ""
