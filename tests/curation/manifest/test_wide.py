"""The view manifest joined group by group: the same rows in the same order, and a join keeps no more than a group."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.compaction.compact import compact
from curation.errors import UserError
from curation.manifest import manifest as manifest_module
from curation.manifest.manifest import Manifest
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from tests.support.many_units import many_units
from tests.support.small_root import SmallRoot
from tests.support.whole_root import QUERIES, build_whole_root, rounded_rows


@pytest.fixture
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MIN_FILES", 1), ("ROWS_PER_THREAD", 1)):
        monkeypatch.setattr(manifest_module, name, value)
    monkeypatch.setattr(manifest_module, "count_threads", lambda _: 1)


UNORDERED = (
    "select * from manifest",
    "select uid, status, kept, num_words, duplicate_of from manifest",
    "select reason, uid from manifest where width > 20 limit 7",
    "select train_shard, train_offset, uid, \"odd name\" from manifest where kept",
)  # fmt: skip


@pytest.mark.usefixtures("_small_groups")
@pytest.mark.parametrize("sql", [*QUERIES, *UNORDERED])
def test_groups_give_what_the_whole_view_gives(made: SmallRoot, sql: str) -> None:
    with Manifest(made.root) as manifest:
        whole = manifest.connection.sql(sql)
        found = manifest.query(sql)
        assert found.columns == whole.columns and found.types == whole.types
        assert rounded_rows(found) == rounded_rows(whole)


@pytest.mark.usefixtures("_small_groups")
def test_a_join_keeps_the_other_table_of_one_group(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    num_rows = len(many_units(root, range(12)))
    for number in range(7):
        batch, rows = f"{number:08x}", {f"{unit:06d}": 12 for unit in range(number, 12, 7)}
        plan = {"batch": batch, "number": number, "inputs": [], "totals": {}, "units": rows}
        root.publish_json(f"plans/{batch}.json", plan | {"num_rows_per_unit": 12, "hosts": {}, "large_domains": {}})
    monkeypatch.setattr(manifest_module, "ROWS_PER_THREAD", 48)
    with Manifest(root) as manifest:
        asked = manifest.query("select status, count(*) from manifest group by all")
        explained = asked.explain()
        assert explained.count("Join Type: LEFT") == 3 and "RIGHT" not in explained
        assert sum(count for _, count in asked.fetchall()) == num_rows
        assert "Union" not in manifest.query("select source, count(*) from manifest group by all").explain()


@pytest.fixture
def sealed(root: Root) -> Root:
    build_whole_root(root)
    seal_root(root, summed_tables(root))
    return root


ASKED = "select status, count(*) from manifest group by all order by all"


@pytest.mark.usefixtures("_small_groups")
def test_files_of_groups_are_compared_with_their_sums(sealed: Root) -> None:
    with Manifest(sealed) as manifest:
        manifest.query(ASKED)
    path = Path(sealed.full(manifest.files("downloads")[-1]))
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with Manifest(sealed) as manifest, pytest.raises(UserError, match="does not hold what was published"):
        manifest.query(ASKED)


@pytest.mark.usefixtures("_small_groups")
def test_units_of_one_packed_file_are_one_group(sealed: Root) -> None:
    with Manifest(sealed) as manifest:
        apart = manifest.query(ASKED)
        rows = apart.fetchall()
        assert "Union" in apart.explain()
    compact(sealed)
    with Manifest(Root(sealed.url())) as manifest:
        together = manifest.query(ASKED)
        assert "Union" not in together.explain() and together.fetchall() == rows


@pytest.mark.usefixtures("_small_groups")
def test_a_damaged_plan_is_no_matter_of_queries(sealed: Root) -> None:
    with Manifest(sealed) as manifest:
        rows = manifest.query(ASKED).fetchall()
    sealed.publish_json("plans/0badbeef.json", {"number": "none"})
    with Manifest(sealed) as manifest:
        assert manifest.query(ASKED).fetchall() == rows
