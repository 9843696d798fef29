"""Twenty SIGKILLs of a download on a cluster — its driver, its executors, their Python workers — cost no row.

Seeded: the order of the kills and their moments are those of SEED.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from curation.storage import Root
from curation.verify import verify
from tests.support.cluster import Cluster, environment, kill
from tests.support.demo_run import files
from tests.support.small_web import pictures, recipe, serve

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
SEED = 20261125
KILLS = {"driver": 4, "executor": 8, "worker": 8}
NUM_ROWS = 1_400
ANSWER_S = 0.12
"""How long the web takes for an answer while kills go on: units last for seconds, so most kills meet half a unit."""
LIMIT_S = 600.0
CONF = {"spark.task.maxFailures": "50", "spark.python.worker.reuse": "true"}


def victims(cluster: Cluster, kind: str) -> list[int]:
    """Executors, or Python workers (forks of an executor's daemon), of the cluster now."""
    return cluster.executors() if kind == "executor" else cluster.python_workers()


def at_work(cluster: Cluster, kind: str, driver: subprocess.Popen[bytes], log: Path) -> list[int]:
    """Wait until tasks run; the processes of `kind` that may be killed."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        assert driver.poll() is None, f"the download ended before all kills\n{log.read_text()[-3_000:]}"
        found = victims(cluster, "worker" if kind == "driver" else kind)
        if found and victims(cluster, "worker"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"nothing to kill within {LIMIT_S:.0f} s\n{log.read_text()[-3_000:]}")


def contents(root: Root) -> dict[str, bytes]:
    """Tables and shards; a shard that no row names does not exist, by contract."""
    named = {row for unit in root.units("downloads") for row in shards(root, unit)}
    found = files(Path(root.path))
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("raw/") or name in named}


def shards(root: Root, unit: str) -> set[str | None]:
    return set(root.read_parquet(f"downloads/{unit}.parquet", ["shard"])["shard"].to_pylist())


@pytest.mark.timeout(1800)
def test_twenty_kills_lose_and_double_no_row(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    order = [kind for kind, count in KILLS.items() for _ in range(count)]
    rng.shuffle(order)
    slow_s = [ANSWER_S]

    def web(host: str, path: str, asked: int) -> tuple[int, bytes]:
        time.sleep(slow_s[0])
        return pictures(host, path, asked)

    killed, undisturbed, log = tmp_path / "killed", tmp_path / "undisturbed", tmp_path / "log"
    with serve(web) as (port, asked), Cluster(num_workers=2) as cluster:
        file = recipe(tmp_path / "meta", port, NUM_ROWS, num_hosts=40, rows_per_unit=50)
        settings = ["download.rounds=0", "download.max_concurrency=2", "download.max_per_host=2"]
        flags = ["--recipe", file, *(word for setting in settings for word in ("--set", setting))]
        done = cluster.submit("jobs/ingest.py", *flags, "--root", killed)
        assert done.returncode == 0, done.stderr[-3_000:]
        shutil.copytree(killed, undisturbed)

        def start() -> subprocess.Popen[bytes]:
            command = cluster.command("jobs/download.py", *flags, "--root", killed, conf=CONF)
            with open(log, "ab") as sink:
                return subprocess.Popen(command, env=environment(), stdout=sink, stderr=sink, start_new_session=True)

        driver = start()
        try:
            for kind in order:
                at_work(cluster, kind, driver, log)
                time.sleep(rng.uniform(0.2, 1.5))
                if kind == "driver":
                    kill(driver)
                    driver = start()
                else:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(at_work(cluster, kind, driver, log)), signal.SIGKILL)
            slow_s[0] = 0.0
            assert driver.wait(LIMIT_S * 2) == 0, log.read_text()[-3_000:]
        finally:
            kill(driver)
        requests = sum(count for (_, path), count in asked.items() if path != "/robots.txt")
        done = cluster.submit("jobs/download.py", *flags, "--root", undisturbed)
        assert done.returncode == 0, done.stderr[-3_000:]
    root, other = Root(killed), Root(undisturbed)
    assert verify(root) is None and verify(other) is None
    found, expected = contents(root), contents(other)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert len(root.units("downloads")) >= 20
    # The journal keeps what a killed task had: only what was in flight is asked for again.
    assert requests < NUM_ROWS * 1.25
