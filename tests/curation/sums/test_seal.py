"""Ledgers follow what stages publish, and a kill at any moment leaves nothing that looks damaged or foreign."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from curation.errors import UserError
from curation.storage import Root, parquet_bytes
from curation.sums.ledger import Sum, sum_bytes
from curation.sums.recorder import sealing
from curation.sums.seal import check_own_tables, check_tables, is_whole, lost_files, open_files, seal_tables

UNIT = "samples/0123abcd-000000.parquet"


def table(*uids: str) -> pa.Table:
    return pa.table({"uid": list(uids)})


@pytest.fixture
def sealed(tmp_path: Path) -> Root:
    """A sealed root with one plan and one unit."""
    root = Root(tmp_path / "root")
    root.create(sealed=True)
    with sealing(root, ["plans", "samples"]) as recording:
        recording.publish_parquet(UNIT, table("a"))
        recording.publish_json("plans/0123abcd.json", {"number": 0})
    return root


def path(root: Root, rel: str) -> Path:
    return Path(root.full(rel))


def test_what_was_published_is_known_to_every_reader(sealed: Root) -> None:
    assert sealed.expected(UNIT) == sum_bytes(parquet_bytes(table("a")))
    path(sealed, UNIT).write_bytes(parquet_bytes(table("b")))
    with pytest.raises(UserError, match="does not hold what was published: delete it and run `curate ingest` again"):
        Root(sealed.base).read_parquet(UNIT, ["uid"])


def test_the_same_files_give_the_same_ledger(sealed: Root, tmp_path: Path) -> None:
    other = Root(tmp_path / "other")
    other.create(sealed=True)
    other.publish_json("plans/0123abcd.json", {"number": 0})
    other.publish_parquet(UNIT, table("a"))
    seal_tables(other, ["samples", "plans"], {})
    names = ["root.json", *(f"sums/{name}" for name in sealed.list("sums"))]
    assert [other.read_bytes(name) for name in names] == [sealed.read_bytes(name) for name in names]


def test_a_reader_that_began_before_sees_what_replaced_a_file(sealed: Root) -> None:
    reader = Root(sealed.base)
    assert reader.read_parquet(UNIT).num_rows == 1
    with sealing(sealed, ["samples"]) as recording:
        recording.publish_parquet(UNIT, table("a", "b"))
    assert reader.read_parquet(UNIT).num_rows == 2


def test_a_kill_after_a_file_was_replaced_leaves_an_open_entry(sealed: Root) -> None:
    open_files(sealed, [UNIT])
    sealed.publish_parquet(UNIT, table("a", "b"))
    entry = sealed.expected(UNIT)
    assert entry is not None and entry.sha256 is None and sealed.read_parquet(UNIT).num_rows == 2
    seal_tables(sealed, ["samples"], {})
    assert sealed.expected(UNIT) == sum_bytes(parquet_bytes(table("a", "b")))


def test_what_an_error_interrupts_is_sealed_as_far_as_it_came(sealed: Root) -> None:
    rel = UNIT.replace("000000", "000001")
    with pytest.raises(OSError, match="full"), sealing(sealed, ["samples"]) as recording:
        recording.publish_parquet(rel, table("c"))
        raise OSError("full")
    assert sealed.expected(rel) == sum_bytes(parquet_bytes(table("c")))


def test_what_a_killed_run_left_is_checked_and_sealed(sealed: Root) -> None:
    rel = UNIT.replace("000000", "000001")
    whole = parquet_bytes(table(*map(str, range(1000))))
    damaged = bytearray(whole)
    damaged[500] ^= 1
    sealed.publish(rel, bytes(damaged))
    with pytest.raises(UserError, match="is not a readable parquet file"):
        seal_tables(sealed, ["samples"], {})
    sealed.publish(rel, whole)
    seal_tables(sealed, ["samples"], {})
    assert sealed.expected(rel) == sum_bytes(whole)


def test_a_unit_of_no_plan_is_not_sealed(sealed: Root) -> None:
    sealed.publish_parquet("samples/ffffffff-000000.parquet", table("d"))
    seal_tables(sealed, ["samples"], {})
    assert sealed.expected("samples/ffffffff-000000.parquet") is None


def test_damage_is_not_sealed(sealed: Root) -> None:
    before = sealed.expected(UNIT)
    path(sealed, UNIT).write_bytes(b"x")
    seal_tables(sealed, ["samples"], {})
    assert sealed.expected(UNIT) == before
    with pytest.raises(UserError, match="has 1 bytes, not"):
        check_tables(sealed, ["samples"])
    path(sealed, UNIT).unlink()
    assert lost_files(sealed, "samples") == [UNIT]
    sealed.publish_parquet(UNIT.replace("000000", "000001"), table("e"))
    with pytest.raises(UserError, match=r"is missing: run `curate ingest` again"):
        check_tables(sealed, ["samples", "rejects"])


def test_a_stage_refuses_a_file_of_its_own_that_has_another_size_and_makes_a_missing_one(sealed: Root) -> None:
    check_own_tables(sealed, ["samples", "rejects"])
    whole = path(sealed, UNIT).read_bytes()
    path(sealed, UNIT).write_bytes(whole[:100])
    with pytest.raises(UserError, match=r"has 100 bytes, not \d+: delete it and run `curate ingest` again"):
        check_own_tables(sealed, ["plans", "samples"])
    path(sealed, UNIT).unlink()
    check_own_tables(sealed, ["samples"])
    open_files(sealed, [UNIT])
    path(sealed, UNIT).write_bytes(whole[:100])
    check_own_tables(sealed, ["samples"])


def test_only_the_current_version_counts(sealed: Root) -> None:
    for version in ("aaa", "bbb"):
        with sealing(sealed, ["selection"]) as recording:
            rel = f"selection/{version}/u.parquet"
            recording.publish_parquet(rel, table(version))
            recording.publish_current("selection", version, [rel], {}, {})
        assert is_whole(sealed, "selection")
    sealed.remove("selection/aaa")
    assert is_whole(sealed, "selection") and lost_files(sealed, "selection") == []
    sealed.remove("selection/bbb/u.parquet")
    assert not is_whole(sealed, "selection")


def test_what_a_stage_deletes_itself_is_not_missed(sealed: Root) -> None:
    with sealing(sealed, ["samples"]) as recording:
        recording.remove("samples")
        entry = sealed.expected(UNIT)
        assert entry is not None and entry.sha256 is None
        recording.publish_parquet(UNIT, table("f"))
    assert sealed.expected(UNIT) == sum_bytes(parquet_bytes(table("f")))


def test_logs_and_scratch_stand_under_no_sum(sealed: Root) -> None:
    with sealing(sealed, ["samples"]) as recording:
        recording.publish_json("logs/a.json", {})
        recording.publish("duplicates/abc/work/x.npy", b"x")
    assert sealed.expected("logs/a.json") is None and sealed.expected("duplicates/abc/work/x.npy") is None


@pytest.mark.parametrize("byte", range(0, 200, 7))
def test_each_byte_of_root_json_counts(sealed: Root, byte: int) -> None:
    data = bytearray(sealed.read_bytes("root.json"))
    data[byte] ^= 1
    path(sealed, "root.json").write_bytes(data)
    with pytest.raises(UserError):
        Root(sealed.base).check_format()


def test_a_sealed_root_does_not_pass_for_one_without_sums(sealed: Root) -> None:
    fields = json.loads(sealed.read_bytes("root.json"))
    path(sealed, "root.json").write_text(json.dumps({**fields, "format": 2}))
    with pytest.raises(UserError, match="is damaged"):
        Root(sealed.base).check_format()


def test_ledgers_name_sizes(sealed: Root) -> None:
    assert dict(sealed.ledger("samples")) == {UNIT: Sum(*sum_bytes(sealed.read_bytes(UNIT)))}
