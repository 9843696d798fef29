"""`python -m tests.support.failing_stage ROOT WAY`: one stage over two units, in which something goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.command import run_guarded
from curation.errors import UserError
from curation.recipe.config import Recipe
from curation.storage import Root
from curation.terminal import write_out
from jobs.spark.slices import read_slices
from jobs.spark.stage import PREFIX, Stage, run_loaded
from jobs.spark.tasks import map_units


def work(folder: Path, way: str, item: int) -> int:
    """One unit. Each attempt leaves a file in `folder`."""
    attempt = len(list(folder.glob(f"{item}-*")))
    (folder / f"{item}-{attempt}").touch()
    if way == "worker" or (way == "worker once" and attempt == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "value":
        raise ValueError("a value that no code expects\nin two lines")
    if way == "sentence":
        raise UserError("This unit is bad: mend it.")
    time.sleep(5 if way == "java" else 0)
    return item


def run(spark: Any, _recipe: Recipe, root: Root) -> None:
    folder, way = Path(root.path, "attempts"), sys.argv[2]
    folder.mkdir()
    if way == "java":
        threading.Thread(target=_kill_java_when, args=(folder,)).start()
    if way == "frame":
        read_frame(spark, folder)
    found = map_units(spark, "units", [0, 1], lambda item: work(folder, way, item))
    write_out(f"{found}\n")


def read_frame(spark: Any, folder: Path) -> None:
    """Of twenty tasks of a frame one finds bad input: at once when it is tried first, after two minutes again."""
    schema = pa.schema([("n", pa.int64())])

    def read(number: int) -> Iterator[pa.RecordBatch]:
        again = any(folder.glob(f"{number}-*"))
        (folder / f"{number}-{uuid.uuid4().hex}").touch()
        if number == 1:
            time.sleep(120 if again else 0)
            raise UserError("This slice is bad: mend it.")
        yield pa.RecordBatch.from_pydict({"n": [number]}, schema)

    read_slices(spark, list(range(20)), read, schema).repartition(3).collect()


def _kill_java_when(folder: Path) -> None:
    from pyspark import SparkContext

    while not list(folder.iterdir()):
        time.sleep(0.05)
    os.kill(SparkContext._gateway.proc.pid, signal.SIGKILL)  # type: ignore[union-attr]


if __name__ == "__main__":
    opened = Root(sys.argv[1])
    opened.create()
    stage = Stage("units", lambda recipe, root: None, run)
    sys.exit(run_guarded(lambda: run_loaded([stage], Recipe(), opened), PREFIX))
