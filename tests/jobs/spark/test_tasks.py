"""A task takes one unit, or a run of many; each is done once, results come in order, failures are raised."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pyspark import TaskContext

from curation.errors import UserError
from jobs.spark import tasks
from jobs.spark.tasks import cut_runs, is_repeated, map_units

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_results_come_in_the_order_of_the_items(spark: SparkSession) -> None:
    assert map_units(spark, "square", list(range(7)), lambda n: n * n) == [n * n for n in range(7)]


def test_of_nothing_to_do_spark_does_not_hear() -> None:
    """A job without tasks starts a Python process all the same, which takes seconds, and shows a bar of no steps."""
    no_spark: Any = None
    assert map_units(no_spark, "nothing", [], lambda n: n) == []


def test_as_many_tasks_run_at_once_as_there_are_cores(spark: SparkSession, tmp_path: Path) -> None:
    """Each task waits until all of a first wave have begun: run one after the other, they would never end."""
    wave = spark.sparkContext.defaultParallelism
    folder = str(tmp_path)

    def rendezvous(number: int) -> bool:
        Path(folder, str(number)).touch()
        deadline = time.monotonic() + 60
        while len(list(Path(folder).iterdir())) < wave and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(list(Path(folder).iterdir())) >= wave

    assert all(map_units(spark, "meet", list(range(wave)), rendezvous))


def test_a_user_error_stays_one_sentence(spark: SparkSession) -> None:
    def work(number: int) -> None:
        raise UserError(f"File {number} is bad: delete it.")

    with pytest.raises(UserError) as caught:
        map_units(spark, "fail", [7], work)
    assert str(caught.value) == "File 7 is bad: delete it."


def test_a_failed_task_is_raised(spark: SparkSession) -> None:
    def work(number: int) -> None:
        if number == 1:
            raise ValueError("unit 1 is bad")

    with pytest.raises(Exception, match="unit 1 is bad"):
        map_units(spark, "fail", [0, 1], work)
    assert map_units(spark, "again", [5], lambda n: n) == [5]


def test_many_units_share_few_tasks_and_each_is_done_once(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MAX_TASKS", 5)
    folder, num = str(tmp_path), 23

    def note(number: int) -> tuple[int, int]:
        context = TaskContext.get()
        assert context is not None
        with open(Path(folder, str(number)), "a") as f:
            f.write("x")
        return number, context.partitionId()

    sizes = [100 if number == 7 else 1 for number in range(num)]
    done = map_units(spark, "many", list(range(num)), note, lambda: sizes)
    assert [number for number, _ in done] == list(range(num))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {str(n): "x" for n in range(num)}
    by_task = [[number for number, task in done if task == one] for one in sorted({task for _, task in done})]
    assert by_task == [list(range(7)), [7], list(range(8, num))]  # balanced by rows, not by units


@pytest.mark.parametrize("num", [1, 4_096, 4_097, 50_000, 230_000])
@pytest.mark.parametrize("sizes", ["equal", "one large", "some empty"])
def test_a_job_has_a_bounded_number_of_tasks(num: int, sizes: str) -> None:
    rows = {"equal": [10_000] * num, "one large": [1] * (num - 1) + [10**9], "some empty": [0, 7] * (num // 2 + 1)}
    runs = cut_runs(range(num), rows[sizes][:num])
    assert [unit for run in runs for unit in run] == list(range(num)) and all(runs)
    assert len(runs) <= 2 * tasks.MAX_TASKS + 1
    if num <= tasks.MAX_TASKS:
        assert len(runs) == num  # as many as there are: the most executors have work
    elif sizes == "equal":
        assert max(map(len, runs)) <= -(-num // tasks.MAX_TASKS)


def test_units_without_rows_are_cut_into_runs_too() -> None:
    assert [len(run) for run in cut_runs(range(8_192), [0] * 8_192)] == [2] * 4_096


@pytest.mark.parametrize(("attempt", "repeated"), [(0, False), (1, True)])
def test_a_task_that_begins_again_knows_it(monkeypatch: pytest.MonkeyPatch, attempt: int, repeated: bool) -> None:
    assert not is_repeated()  # outside of any task
    monkeypatch.setattr(TaskContext, "get", lambda: SimpleNamespace(attemptNumber=lambda: attempt))
    assert is_repeated() is repeated
