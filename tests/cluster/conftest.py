"""What all troubles of the cluster suite share: a web, a root of one machine to compare with, three workers."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import REPOSITORY, Cluster
from tests.support.cluster_work import NUM_ROWS, ROWS_PER_UNIT, Work, curate
from tests.support.small_web import Answer, pictures, recipe, serve


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    folder = tmp_path_factory.mktemp("cluster")

    def answer(host: str, path: str, asked: int) -> Answer:
        time.sleep(made.answer_s)
        return pictures(host, path, asked)

    with serve(answer) as (port, _):
        file = recipe(folder / "meta", port, NUM_ROWS, num_hosts=20, rows_per_unit=ROWS_PER_UNIT)
        made = Work(file, folder / "local", folder / "ingested")
        curate("ingest", *made.arguments(made.ingested))
        made.copy(made.local)
        curate("run", *made.arguments(made.local))
        yield made


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip that docs/operations.md ships to executors, of the files as they are now."""
    file = tmp_path_factory.mktemp("package") / "clip-curation.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("curation", "filters", "jobs", "trainer"):
            for path in sorted((REPOSITORY / name).rglob("*.py")):
                archive.write(path, path.relative_to(REPOSITORY))
    return file


@pytest.fixture(scope="module")
def cluster(package: Path) -> Iterator[Cluster]:
    with Cluster(num_workers=3, py_files=package) as found:
        yield found
