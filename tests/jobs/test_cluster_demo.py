"""The stages by `spark-submit --master spark://…` on two workers give what they give on this machine alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.demo import metadata
from curation.demo.web import Web
from curation.manifest.manifest import Manifest
from curation.storage import Root
from curation.verify import verify
from jobs.demo import settings
from jobs.stages import STAGES
from tests.support.cluster import Cluster
from tests.support.demo_run import DemoRun, contents

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]


def test_two_workers_give_the_same_selection_and_shards(demo_run: DemoRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    meta = tmp_path / "meta"
    metadata.write_metadata(meta)
    with Cluster(num_workers=2) as cluster, Web() as web:
        flags = [word for setting in settings(meta, web) for word in ("--set", setting)]
        for module, _ in STAGES.values():
            script = f"{module.replace('.', '/')}.py"
            done = cluster.submit(script, "--recipe", "demo", "--root", folder, *flags)
            assert done.returncode == 0, done.stderr[-4_000:]
        assert cluster.num_alive() == 2
    root = Root(folder)
    assert verify(root) is None
    ask = "select uid, kept, reason from selection order by uid"
    assert Manifest(root).query(ask).fetchall() == Manifest(demo_run.root).query(ask).fetchall()
    found, local = tables(folder), tables(demo_run.folder)
    assert sorted(found) == sorted(local)
    assert [name for name, data in local.items() if found[name] != data] == []


def tables(folder: Path) -> dict[str, bytes]:
    """Every file of every table and every shard; the metadata lie elsewhere, and records name their folder."""
    return {
        name: data for name, data in contents(folder).items() if not name.startswith("demo/") and ".json" not in name
    }
