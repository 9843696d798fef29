"""All seven stages by spark-submit on three workers, which get the project as a zip, give the bytes of one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.storage import Root
from curation.verify import verify
from jobs.stages import STAGES
from tests.support.cluster import Cluster
from tests.support.cluster_work import Work
from tests.support.demo_run import files

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.cluster, pytest.mark.timeout(3600)]


def test_three_workers_give_the_bytes_of_one_machine(work: Work, cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "root"
    for module, _ in STAGES.values():
        done = cluster.submit(f"{module.replace('.', '/')}.py", *work.arguments(folder))
        assert done.returncode == 0, done.stderr[-4_000:]
    assert cluster.num_alive() == 3 and verify(Root(folder)) is None
    found, expected = files(folder), files(work.local)
    assert sorted(found) == sorted(expected)
    assert [name for name, path in expected.items() if found[name].read_bytes() != path.read_bytes()] == []
