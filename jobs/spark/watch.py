"""The progress of a stage whose work Spark itself divides: tasks of its jobs, as Spark's status tracker counts them."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession
from tqdm import tqdm

from curation.progress import bar

POLL_S = 1.0


@contextlib.contextmanager
def watch_jobs(spark: SparkSession, name: str) -> Iterator[None]:
    """Count the tasks of Spark's running stages as steps of stage `name` of the run, until the body ends."""
    ended = threading.Event()
    watching = threading.Thread(target=_watch, args=(spark, name, ended), daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


@contextlib.contextmanager
def ignore_lost_java() -> Iterator[None]:
    """Let a thread that asks Spark end without a word when Java has gone: the stage itself says so."""

    def is_of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != here

    # Its client logs what it raises, to nobody's logger.
    here, root = threading.get_ident(), logging.getLogger()
    root.addFilter(is_of_another_thread)
    try:
        with contextlib.suppress(Py4JError, ConnectionError, AttributeError):
            yield
    finally:
        root.removeFilter(is_of_another_thread)


def _watch(spark: SparkSession, name: str, ended: threading.Event) -> None:
    shown: dict[int, tqdm[Any]] = {}
    num_steps = 0
    with ignore_lost_java():
        tracker = spark.sparkContext.statusTracker()
        while not ended.wait(POLL_S):
            running = {number: tracker.getStageInfo(number) for number in tracker.getActiveStageIds()}
            for number in set(shown) - set(running):
                shown.pop(number).close()
            for number, info in running.items():
                if info is None:
                    continue
                if number not in shown:
                    num_steps += 1
                    shown[number] = bar(info.numTasks, f"{name}, step {num_steps}", "task")
                    shown[number].leave = False
                if info.numFailedTasks:
                    shown[number].set_postfix_str(f", {info.numFailedTasks} failed", refresh=False)
                shown[number].update(info.numCompletedTasks - shown[number].n)
    for progress in shown.values():
        progress.close()
