"""What Spark works on is shown by the stage's name, with the tasks that are done."""

from __future__ import annotations

import functools
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curation import progress
from jobs.spark import watch
from jobs.spark.watch import watch_jobs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def _wait_at_the_end(told: str, number: int) -> int:
    """The last task ends when a line has told of others that are done."""
    deadline = time.monotonic() + 120
    while number == 7 and not Path(told).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return number


def test_the_tasks_of_a_stage_are_counted_under_its_name(
    spark: SparkSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = progress._LineSink.write

    def tell(sink: progress._LineSink, text: str) -> None:
        write(sink, text)
        if re.search(r": [1-9] of 8 tasks", text):
            (tmp_path / "told").touch()

    monkeypatch.setattr(progress, "LINE_S", 0.0)
    monkeypatch.setattr(progress._LineSink, "write", tell)
    monkeypatch.setattr(watch, "POLL_S", 0.1)
    tasks = spark.sparkContext.parallelize(range(8), 8)
    with watch_jobs(spark, "pack"):
        assert tasks.map(functools.partial(_wait_at_the_end, str(tmp_path / "told"))).count() == 8
    lines = capsys.readouterr().err.splitlines()
    shown = [found for line in lines if (found := re.match(r"pack, step 1: (\d) of 8 tasks, .* left$", line))]
    assert shown and int(shown[-1][1]) > 0
    assert [int(found[1]) for found in shown] == sorted(int(found[1]) for found in shown)


def test_an_error_of_the_stage_stays_what_it_is(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="mine"), watch_jobs(spark, "pack"):
        raise ValueError("mine")
