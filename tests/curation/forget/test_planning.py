"""What a removal has to change: counts of plans, rejects, old versions; and that planning writes nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from curation import schema
from curation.forget import plan
from curation.forget.planning import plan_removal
from curation.forget.requests import parse_requests
from curation.plan import read_plans
from curation.storage import Root
from tests.support import removal
from tests.support.small_root import BATCH, UNITS


def test_a_plan_counts_samples_and_rejects_that_became_forgotten_once(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    uid = sorted(made.samples)[0]
    repeat = {"source": "coyo", "file": "b.parquet", "row": 7, "uid": uid, "reason": "repeated"}
    (before,) = read_plans(made.root)
    removal.publish(
        made.root,
        {f"rejects/{UNITS[1]}.parquet": pa.Table.from_pylist([repeat], schema.REJECTS)},
        {f"plans/{BATCH}.json": {**before, "totals": {**before["totals"], "repeated": 1}}},
    )
    pending, _ = plan_removal(
        Root(tmp_path / "root"), parse_requests(uids=[uid]), reason="r", date=removal.DATE, with_copies=False
    )
    assert pending is not None
    totals = pending.plans[f"plans/{BATCH}.json"]["totals"]
    assert totals == {"samples": 39, "no_url": 1, "where": 1, "repeated": 0, "forgotten": 2}
    assert sum(map(len, pending.rejects.values())) == 2 and made.units[uid] in pending.units


def test_hosts_without_rows_leave_the_plan(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    (before,) = read_plans(made.root)
    hosts = {"num_rows": 40, "num_domains": 5, "largest": {f"host{k}.test": 8 for k in range(5)}}
    large = {"host1.test": {"first_unit": 0, "num_units": 2}}
    removal.publish(made.root, records={f"plans/{BATCH}.json": {**before, "hosts": hosts, "large_domains": large}})
    requests = parse_requests(hosts=["host1.test"])
    pending, _ = plan_removal(made.root, requests, reason="r", date=removal.DATE, with_copies=False)
    assert pending is not None
    changed = pending.plans[f"plans/{BATCH}.json"]
    assert changed["hosts"]["num_rows"] == 32 and changed["hosts"]["num_domains"] == 4
    assert "host1.test" not in changed["hosts"]["largest"] and changed["large_domains"] == {}


def test_only_old_versions_with_such_a_row_are_named(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    one, other = sorted(made.samples)[:2]
    for version, uid in (("0123456789ab", one), ("ba9876543210", other)):
        made.root.publish_parquet(f"selection/{version}/u.parquet", pa.table({"uid": [uid]}))
    done = plan(made.root, parse_requests(uids=[one]), reason="r", date=removal.DATE)
    assert done is not None and done.pending.old_versions == ["selection/0123456789ab"]


def test_planning_writes_nothing(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    before = removal.contents(tmp_path / "root")
    assert plan(made.root, parse_requests(hosts=["host2.test"]), reason="r", date=removal.DATE) is not None
    assert removal.contents(tmp_path / "root") == before
