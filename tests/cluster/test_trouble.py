"""Executors, workers and drivers that die, are slow or have no disk while a stage runs: the bytes stay the same."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from curation.storage import Root
from curation.verify import verify
from tests.support.cluster import Cluster, environment, kill
from tests.support.cluster_work import Work, downloaded
from tests.support.small_disk import mount_small_disk

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]
LIMIT_S = 600.0
ANSWER_S = 2.0
"""How long the web takes while there is trouble: a minute for all rows, several times what the trouble takes."""
SETTINGS = ("download.max_concurrency=2", "download.max_per_host=2")
RETRIES = {"spark.task.maxFailures": "20"}
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "200ms",
    "spark.speculation.quantile": "0.3",
    "spark.speculation.multiplier": "1.5",
}
DYNAMIC = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.minExecutors": "1",
    "spark.dynamicAllocation.maxExecutors": "3",
    "spark.dynamicAllocation.executorIdleTimeout": "1s",
    "spark.executor.cores": "1",
}
EXCLUDING = {
    # All workers have one host name here, so that executors are passed over and never their host.
    "spark.excludeOnFailure.enabled": "true",
    "spark.excludeOnFailure.task.maxTaskAttemptsPerNode": "19",
    "spark.excludeOnFailure.stage.maxFailedExecutorsPerNode": "100",
    "spark.excludeOnFailure.application.maxFailedExecutorsPerNode": "100",
}


class Driver:
    """One spark-submit of a stage; it is killed with the block."""

    def __init__(self, cluster: Cluster, stage: str, arguments: list[str], log: Path, **conf: str) -> None:
        self.cluster, self.log = cluster, log
        self.command = cluster.command(f"jobs/{stage}.py", *arguments, conf=conf)

    def __enter__(self) -> Driver:
        streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        with open(self.log, "ab") as sink:
            self.process = subprocess.Popen(
                self.command, env=environment(), stdout=sink, start_new_session=True, **streams
            )
        return self

    def __exit__(self, *_: object) -> None:
        kill(self.process)

    def wait_for_tasks(self, num_executors: int = 1) -> None:
        """Wait until Python workers run on so many executors."""
        self.wait_until(lambda: self.cluster.python_workers() and len(self.cluster.executors()) >= num_executors)

    def wait_until(self, is_so: Callable[[], object]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not is_so():
            assert self.process.poll() is None, f"it ended before the trouble began\n{self.said()}"
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def succeed(self) -> None:
        assert self.process.wait(LIMIT_S) == 0, self.said()

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4_000:]


@pytest.fixture
def slow_web(work: Work) -> Iterator[None]:
    work.answer_s = ANSWER_S
    yield
    work.answer_s = 0.0


def download(work: Work, cluster: Cluster, tmp_path: Path, **conf: str) -> Driver:
    root = tmp_path / "root"
    if not root.exists():
        work.copy(root)
    return Driver(cluster, "download", work.arguments(root, *SETTINGS), tmp_path / "log", **RETRIES, **conf)


def check(work: Work, folder: Path) -> None:
    """The root in `folder` is sound and has the bytes that one machine makes."""
    root, expected = Root(folder), downloaded(work.local)
    assert verify(root) is None
    found = downloaded(folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.usefixtures("slow_web")
def test_executors_are_killed_and_a_worker_is_lost_and_another_added(
    work: Work, cluster: Cluster, tmp_path: Path
) -> None:
    with download(work, cluster, tmp_path) as driver:
        driver.wait_for_tasks(num_executors=3)
        os.kill(cluster.executors()[0], signal.SIGKILL)
        kill(cluster.workers[0])
        lost = cluster.workers.pop(0)
        assert lost.returncode is not None
        driver.wait_for_tasks()
        added = cluster.add_worker()
        driver.wait_until(lambda: cluster.executors(added))
        work.answer_s = 0.0
        driver.succeed()
    check(work, tmp_path / "root")


@pytest.mark.usefixtures("slow_web")
def test_a_driver_is_killed_and_run_again(work: Work, cluster: Cluster, tmp_path: Path) -> None:
    with download(work, cluster, tmp_path) as driver:
        driver.wait_for_tasks()
        driver.wait_until(lambda: Root(tmp_path / "root").units("downloads"))
    work.answer_s = 0.0
    with download(work, cluster, tmp_path) as driver:
        driver.succeed()
    check(work, tmp_path / "root")


@pytest.mark.soak
@pytest.mark.usefixtures("slow_web")
def test_a_slow_worker_is_overtaken(work: Work, cluster: Cluster, tmp_path: Path) -> None:
    """Its tasks are begun again elsewhere, and two attempts at one unit publish the same bytes."""
    with download(work, cluster, tmp_path, **SPECULATION) as driver, stuttering(cluster, cluster.workers[0]):
        driver.wait_for_tasks(num_executors=3)
        work.answer_s = 0.05
        driver.succeed()
    check(work, tmp_path / "root")


@contextlib.contextmanager
def stuttering(cluster: Cluster, worker: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let the executors of `worker` run for a tenth of the time only."""
    ended = threading.Event()

    def stutter() -> None:
        while not ended.is_set():
            pids = [*cluster.executors(worker), *cluster.python_workers(worker)]
            send(pids, signal.SIGSTOP)
            ended.wait(0.9)
            send(pids, signal.SIGCONT)
            ended.wait(0.1)

    thread = threading.Thread(target=stutter)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.mark.soak
@pytest.mark.usefixtures("slow_web")
def test_executors_come_and_go_with_the_work(work: Work, cluster: Cluster, tmp_path: Path) -> None:
    with download(work, cluster, tmp_path, **DYNAMIC) as driver:
        driver.wait_for_tasks(num_executors=2)  # it begins with one
        work.answer_s = 0.0
        driver.succeed()
    check(work, tmp_path / "root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with mount_small_disk(tmp_path / "disk", "8m") as place:
        yield place


@pytest.mark.soak
def test_the_disk_of_a_worker_fills(work: Work, cluster: Cluster, tmp_path: Path, small_disk: Path) -> None:
    """What Spark shuffles to it fails there and is done by the others."""
    full = cluster.add_worker(SPARK_LOCAL_DIRS=str(small_disk))
    cluster.wait_for_workers(4)
    root = tmp_path / "root"
    try:
        with Driver(cluster, "ingest", work.arguments(root), tmp_path / "log", **RETRIES, **EXCLUDING) as driver:
            driver.wait_until(lambda: cluster.executors(full))
            fill(small_disk)
            driver.succeed()
    finally:
        kill(full)
        cluster.workers.remove(full)
    assert verify(Root(root)) is None
    expected = downloaded(work.ingested)
    assert downloaded(root) == expected and expected


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
