"""A sentence about bad input ends a stage at its first task: Spark would try that task again on every failure."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from pyspark.sql import SparkSession

from curation.errors import UserError
from jobs.spark.errors import parse_raised
from jobs.spark.watch import ignore_lost_java

POLL_S = 0.5
MAX_READ = 20
"""Failed tasks of one Spark stage whose errors are looked at each time."""


@contextlib.contextmanager
def end_at_refusal(spark: SparkSession) -> Iterator[None]:
    """Cancel Spark's jobs as soon as a task has raised UserError, and raise that in place of what the body raises."""
    refusals, ended = list[str](), threading.Event()
    watching = threading.Thread(target=_watch, args=(spark, refusals, ended), daemon=True)
    watching.start()
    try:
        yield
    except Exception as error:  # the jobs that were cancelled end in whatever Spark or Java raises for it
        if refusals and not isinstance(error, UserError):
            raise UserError(refusals[0]) from error
        raise
    finally:
        ended.set()
        watching.join()


def _watch(spark: SparkSession, refusals: list[str], ended: threading.Event) -> None:
    with ignore_lost_java():
        tracker = spark.sparkContext.statusTracker()
        while not ended.wait(POLL_S):
            running = (tracker.getStageInfo(number) for number in tracker.getActiveStageIds())
            failing = [info for info in running if info is not None and info.numFailedTasks]
            refusals += [
                said for info in failing for said in _read_refusals(spark, info.stageId, info.currentAttemptId)
            ]
            if refusals:
                spark.sparkContext.cancelAllJobs()
                return


def _read_refusals(spark: SparkSession, stage: int, attempt: int) -> list[str]:
    """What tasks of Spark's stage `stage` said that raised UserError."""
    java: Any = spark.sparkContext._jvm
    api = java.org.apache.spark.status.api.v1
    failed = java.java.util.ArrayList()
    failed.add(api.TaskStatus.FAILED)
    store = spark.sparkContext._jsc.sc().statusStore()
    tasks = store.taskList(stage, attempt, 0, MAX_READ, api.TaskSorting.ID, failed)
    messages = [tasks.apply(number).errorMessage() for number in range(tasks.size())]
    raised = [parse_raised(str(message.get())) for message in messages if message.isDefined()]
    return [str(error) for error in raised if isinstance(error, UserError)]
