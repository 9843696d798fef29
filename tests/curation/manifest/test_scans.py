"""Queries on packed files: the same rows as on small ones, and of single units no others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.compaction.compact import compact
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from tests.support import packed_root
from tests.support.small_root import BATCH
from tests.support.whole_root import QUERIES, build_whole_root, rounded_rows


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Manifest, Manifest]]:
    """Manifests of one root with every table, before and after its units were joined."""
    folder = tmp_path_factory.mktemp("pair")
    for name in ("plain", "packed"):
        root = Root(folder / name)
        root.create(sealed=True)
        build_whole_root(root)
        seal_root(root, summed_tables(root))
    compact(Root(folder / "packed"))
    with Manifest(folder / "plain") as plain, Manifest(folder / "packed") as packed:
        yield plain, packed


@pytest.mark.parametrize("sql", QUERIES)
def test_every_query_gives_the_same_rows(pair: tuple[Manifest, Manifest], sql: str) -> None:
    plain, packed = pair
    assert sorted(map(str, rounded_rows(packed.query(sql)))) == sorted(map(str, rounded_rows(plain.query(sql))))


def test_a_part_of_the_units_gives_their_rows_and_no_others(pair: tuple[Manifest, Manifest]) -> None:
    plain, packed = pair
    units = plain.root.units("samples")
    for some in ([units[0]], [units[1]], units):
        sql = "select uid, status, kept, num_words, duplicate_of from unit_rows order by uid"
        found = packed.query_units(sql, some).fetchall()
        assert found == plain.query_units(sql, some).fetchall() and len(found) == 20 * len(some)
    assert packed.query_units("select count(*) from unit_rows", []).fetchall() == [(0,)]


def test_runs_of_units_of_one_packed_file(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    compact(root)
    with Manifest(root) as manifest:
        for numbers in ((0, 1, 2), (1, 3, 4, 7), range(8)):
            units = [f"{BATCH}-{number:06d}" for number in numbers]
            wanted = {uid for u in units for uid in root.read_parquet(f"samples/{u}.parquet")["uid"].to_pylist()}
            found = manifest.query_units("select uid, status from unit_rows", units).fetchall()
            assert {uid for uid, _ in found} == wanted and len(found) == len(wanted)
            assert {status for _, status in found} == {"http_404"}


def test_look_ups_of_uids_in_packed_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = packed_root.build(tmp_path / "root", range(70))
    compact(root)
    unit = f"{BATCH}-000042"
    uid = root.read_parquet(f"samples/{unit}.parquet")["uid"][5].as_py()
    with Manifest(root) as manifest:
        assert manifest.units_with([uid]) == [unit]
        relation = manifest.query(f"select uid, status, kept from manifest where uid = '{uid}'")
        assert "file_row_number" in relation.sql_query()
        assert relation.fetchall() == [(uid, "http_404", False)]


def test_a_damaged_packed_file_is_named_before_a_query(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    compact(root)
    path = tmp_path / f"root/samples/packed/{BATCH}-000000-000007.parquet"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with Manifest(root) as manifest, pytest.raises(UserError, match=r"samples/packed/.*curate compact --undo"):
        manifest.query("select count(url) from samples")
