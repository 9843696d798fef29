"""Stages seal what they make: tasks report what they publish, and the driver enters it into the ledgers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from pyspark import Accumulator, AccumulatorParam
from pyspark.sql import SparkSession

from curation.recipe.config import Recipe
from curation.storage import Root
from curation.sums.cover import expand_tables
from curation.sums.ledger import Sum
from curation.sums.recorder import LocalRecorder, sealing
from curation.sums.seal import check_own_tables, check_tables, is_sealed

Run = Callable[[SparkSession, Recipe, Root], None]


def seals(*tables: str, reads: Sequence[str] = ()) -> Callable[[Run], Run]:
    """Decorator of a stage's `run`: what it publishes into `tables` is sealed when it ends, also by an error.

    Before it starts, UserError is raised for a file of `reads` that is missing, and for one of `reads` or `tables` that
    has another size than when it was published. "scores_" stands for every table of scores.
    """

    def decorate(run: Run) -> Run:
        @functools.wraps(run)
        def run_sealed(spark: SparkSession, recipe: Recipe, root: Root) -> None:
            if is_sealed(root):
                check_tables(root, expand_tables(root, reads))
                check_own_tables(root, expand_tables(root, tables))
            with sealing(root, tables, functools.partial(_DriverRecorder, spark)) as recording:
                run(spark, recipe, recording)

        return run_sealed

    return decorate


class _Union(AccumulatorParam[dict[str, Sum]]):
    """Sums by path. An attempt of a task that is repeated reports the same files again, which changes nothing."""

    def zero(self, value: dict[str, Sum]) -> dict[str, Sum]:
        return {}

    def addInPlace(self, value1: dict[str, Sum], value2: dict[str, Sum]) -> dict[str, Sum]:  # noqa: N802
        value1.update(value2)
        return value1


class _DriverRecorder(LocalRecorder):
    """Notes what the driver and, by an accumulator, what tasks publish."""

    def __init__(self, spark: SparkSession, root: Root) -> None:
        super().__init__(root)
        self._spark = spark
        self._by_tasks: Accumulator[dict[str, Sum]] | None = None

    @property
    def recorded(self) -> dict[str, Sum]:
        """What was published so far; what the driver replaced after a task counts."""
        return {**(self._by_tasks.value if self._by_tasks else {}), **self.own}

    def __reduce__(self) -> tuple[Any, ...]:
        if self._by_tasks is None:
            self._by_tasks = self._spark.sparkContext.accumulator(dict[str, Sum](), _Union())
        return _TaskRecorder, (self._by_tasks,)


class _TaskRecorder:
    """What a task has in the place of the driver's recorder. Entries that it fulfils anew were opened by the driver."""

    def __init__(self, by_tasks: Accumulator[dict[str, Sum]]) -> None:
        self._by_tasks = by_tasks

    def begin(self, rel: str, found: Sum) -> None:
        """Nothing to do."""

    def end(self, rel: str, found: Sum) -> None:
        """Report that `rel` holds `found`."""
        self._by_tasks.add({rel: found})

    def discard(self, rel: str) -> None:
        """Nothing to do."""
