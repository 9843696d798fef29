"""Shared fixtures: one lazy Spark session, a small root."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from curation.storage import Root

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Spark's Java processes, also of commands that tests start, are too short for the optimising compiler to earn what it
# costs, a third of all processor time; and its own classes need no verification each time.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
os.environ.setdefault("SPARK_SUBMIT_OPTS", JAVA_OPTIONS)

# A busy machine must not fail a property; pytest-timeout ends what hangs.
hypothesis.settings.register_profile("project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("project")

# Five thousand tests and their modules are half a million objects that live to the end: going over them again and again
# took a third of the time of collecting the tests, and half of that of many a test.
gc.disable()


def pytest_collection_finish() -> None:
    """Leave what has been collected out of all garbage collections to come."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let what was left out go with the interpreter: some libraries report objects that outlive it as leaks."""
    gc.unfreeze()


PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def _disk_not_waited_for() -> Iterator[None]:
    """No test asks what is left when the power fails, and each of thousands of small files would wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One local session a test process, started by the first test that asks for it."""
    from jobs.spark.session import LOG_CONFIG, session

    options = f"-Dlog4j2.configurationFile={LOG_CONFIG.as_uri()} -XX:ReservedCodeCacheSize=200m"
    conf = {"spark__driver__extraJavaOptions": options, "spark__driver__memory": "1g"}
    # What is compiled is kept, since each test asks much of what the one before has asked.
    conf["spark__sql__codegen__cache__maxEntries"] = "3000"
    conf |= {
        "spark__python__daemon__module": "tests.support.warm_daemon",
        "spark__executorEnv__PYTHONPATH": str(PROJECT),
    }
    conf["spark__master"] = f"local[{os.cpu_count()}]"  # one attempt a task: many tests are about tasks that fail
    found = session("tests", spark__sql__shuffle__partitions="2", **conf)
    yield found
    found.stop()


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """An empty root of this version."""
    made = Root(tmp_path / "root")
    made.create()
    return made


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data beside the checkout; skips where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the project")
    return folder
