"""`curate compact`: every unit keeps its bytes, its sum and its name, wherever it lies and whenever it was killed."""

import shutil
from pathlib import Path

import pytest

from curation.compaction import compact as module
from curation.compaction.compact import Compacted, compact, take_apart, undo
from curation.errors import UserError
from curation.forget import forget
from curation.forget.requests import parse_requests
from curation.freshness import Fingerprints
from curation.schema import PACKED_FORMAT, SEALED_FORMAT
from curation.storage import Root
from curation.sums.recorder import sealing
from curation.sums.seal import lost_files
from curation.verify import find_differences
from curation.verify.sealing import seal
from tests.support import packed_root, removal, s3_server
from tests.support.packed_root import is_killed, read_units, standing
from tests.support.removal import DATE, Killing, contents
from tests.support.small_root import BATCH, VERSION

JOINED = {f"{table}/packed/{BATCH}-000000-000007.parquet" for table in ("samples", "downloads", "scores_words")}
JOINED |= {f"selection/{VERSION}/packed/{BATCH}-000000-000007.parquet"}
TABLES = ("samples", "downloads", "scores_words", "selection")


def test_every_unit_reads_as_before_and_few_files_stand(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    before, units = read_units(root), root.units("samples")
    sums = {rel: root.expected(rel) for rel in before}
    prints = [Fingerprints(root).of(table) for table in TABLES]
    assert compact(root) == Compacted(num_joined=32, num_packed=4)
    alone = {rel for rel in before if rel.startswith("rejects/")}  # no two of them follow each other
    assert standing(root) == JOINED | alone
    after = Root(tmp_path / "root")
    assert read_units(after) == before and after.units("samples") == units and not after.missing_units("downloads")
    assert {rel: after.expected(rel) for rel in before} == sums
    assert [Fingerprints(after).of(table) for table in TABLES] == prints
    assert list(find_differences(after)) == [] and list(find_differences(after, quick=True)) == []
    assert after.record().format == PACKED_FORMAT
    assert compact(after) == Compacted(num_joined=0, num_packed=0)


def test_two_compactions_give_the_same_bytes_also_when_units_came_later(tmp_path: Path) -> None:
    packed_root.build(tmp_path / "root")
    shutil.copytree(tmp_path / "root", tmp_path / "other")
    compact(Root(tmp_path / "root"))
    late = Root(tmp_path / "other")
    rel = f"downloads/{BATCH}-000005.parquet"
    data = late.read_whole(rel)
    with sealing(late, ["downloads"]) as recording:
        recording.remove(rel)
        compact(late)
    assert rel not in standing(late) and f"downloads/{BATCH}-000004.parquet" in standing(late)
    with sealing(late, ["downloads"]) as recording:
        recording.publish(rel, data)
    compact(late)
    assert contents(tmp_path / "other") == contents(tmp_path / "root")


@pytest.mark.parametrize("after", [True, False])
def test_a_kill_at_any_change_loses_nothing_and_the_command_again_ends_in_the_same_bytes(
    tmp_path: Path, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNITS", 3)
    packed_root.build(tmp_path / "root", range(5))
    before = read_units(Root(tmp_path / "root"))
    shutil.copytree(tmp_path / "root", tmp_path / "whole")
    counting = Killing(None, after=after)
    assert not is_killed(lambda: compact(Root(tmp_path / "whole")), counting)
    assert counting.count > 30
    for number in range(counting.count):
        shutil.copytree(tmp_path / "root", tmp_path / "killed")
        assert is_killed(lambda: compact(Root(tmp_path / "killed")), Killing(number, after=after))
        assert read_units(Root(tmp_path / "killed")) == before, number
        said = [s for s in find_differences(Root(tmp_path / "killed")) if "interrupted" not in s and "sums/" not in s]
        assert said == [], number
        compact(Root(tmp_path / "killed"))
        assert contents(tmp_path / "killed") == contents(tmp_path / "whole"), number
        shutil.rmtree(tmp_path / "killed")


@pytest.mark.parametrize("after", [True, False])
def test_undo_gives_back_what_was_there_also_when_it_was_killed(tmp_path: Path, after: bool) -> None:
    packed_root.build(tmp_path / "root", range(3))
    shutil.copytree(tmp_path / "root", tmp_path / "packed")
    compact(Root(tmp_path / "packed"))
    counting = Killing(None, after=after)
    shutil.copytree(tmp_path / "packed", tmp_path / "whole")
    assert not is_killed(lambda: undo(Root(tmp_path / "whole")), counting)
    assert contents(tmp_path / "whole") == contents(tmp_path / "root")
    assert Root(tmp_path / "whole").record().format == SEALED_FORMAT
    for number in range(counting.count):
        shutil.copytree(tmp_path / "packed", tmp_path / "killed")
        assert is_killed(lambda: undo(Root(tmp_path / "killed")), Killing(number, after=after))
        assert read_units(Root(tmp_path / "killed")) == read_units(Root(tmp_path / "root")), number
        assert undo(Root(tmp_path / "killed")) == []
        assert contents(tmp_path / "killed") == contents(tmp_path / "root"), number
        shutil.rmtree(tmp_path / "killed")


def test_a_unit_is_not_changed_while_it_lies_in_a_packed_file(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    compact(root)
    rel = f"downloads/{BATCH}-000003.parquet"
    with pytest.raises(RuntimeError, match="is about to be changed"):
        root.publish(rel, b"x")
    with pytest.raises(RuntimeError, match="is about to be changed"):
        root.remove(rel)
    take_apart(root, [rel])
    own = {f"downloads/{BATCH}-{number:06d}.parquet" for number in range(8)}
    assert own < standing(root) and not root.own_sizes("downloads/packed")
    with sealing(root, ["downloads"]) as recording:
        recording.publish_parquet(rel, root.read_parquet(rel).slice(0, 5))
    assert root.read_parquet(rel).num_rows == 5
    compact(root)
    assert root.read_parquet(rel).num_rows == 5 and standing(root) >= JOINED


def test_a_root_that_was_opened_before_still_reads_every_unit(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    before = read_units(root)
    compact(Root(tmp_path / "root"))
    assert {rel: root.read_whole(rel) for rel in before} == before
    undo(Root(tmp_path / "root"))
    assert {rel: root.read_whole(rel) for rel in before} == before
    compact(Root(tmp_path / "root"))
    assert all(root.exists(rel) and root.size(rel) == len(before[rel]) for rel in before)


def test_groups_end_at_rows_units_and_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    units = {f"{number:06d}": 10 for number in (0, 1, 2, 3, 7, 8, 9)} | {"000010": 99}
    monkeypatch.setattr(module, "MAX_ROWS", 50)
    assert [*module.plan_groups(units)] == [[0, 1, 2, 3, 7], [8, 9], [10]]
    monkeypatch.setattr(module, "MAX_UNITS", 2)
    assert [*module.plan_groups(units)] == [[0, 1], [2, 3], [7, 8], [9], [10]]
    assert module.split_consecutive([0, 1, 2, 3, 7, 8]) == [[0, 1, 2, 3], [7, 8]]


def test_a_gap_among_the_units_ends_a_packed_file(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root", (0, 1, 3, 4, 5, 9))
    before = read_units(root)
    compact(root)
    names = {f"{BATCH}-000000-000001.parquet", f"{BATCH}-000003-000005.parquet"}
    assert set(root.own_sizes("samples/packed")) == names
    assert read_units(Root(tmp_path / "root")) == before and list(find_differences(root)) == []


def test_damage_in_a_packed_file_is_named_and_undo_saves_the_other_units(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    before = read_units(root)
    compact(root)
    path, rel = tmp_path / f"root/samples/packed/{BATCH}-000000-000007.parquet", f"samples/{BATCH}-000002.parquet"
    data = bytearray(path.read_bytes())
    data[sum(len(before[f"samples/{BATCH}-{n:06d}.parquet"]) for n in range(2)) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"it lies in samples/packed/.*run `curate compact --undo`"):
        Root(tmp_path / "root").read_parquet(rel)
    said = next(find_differences(Root(tmp_path / "root")))
    assert "samples/packed" in said and "`curate compact --undo`" in said and "`curate ingest`" in said
    assert undo(Root(tmp_path / "root")) == [rel]
    after = Root(tmp_path / "root")
    assert read_units(after) == {name: unit for name, unit in before.items() if name != rel}
    assert lost_files(after, "samples") == [rel]


def test_units_of_a_packed_file_that_is_gone_are_missing_and_can_be_made_again(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    before = read_units(root)
    compact(root)
    (tmp_path / f"root/downloads/packed/{BATCH}-000000-000007.parquet").unlink()
    after = Root(tmp_path / "root")
    assert after.missing_units("downloads") == root.units("samples")
    assert any(f"downloads/{BATCH}-000000.parquet is missing" in said for said in find_differences(after))
    with sealing(after, ["downloads"]) as recording:
        for rel in before:
            if rel.startswith("downloads/"):
                recording.publish(rel, before[rel])
    assert read_units(Root(tmp_path / "root")) == before and list(find_differences(after)) == []


@pytest.mark.parametrize("lost", ["root.json", "sums"])
def test_seal_finds_the_units_again_when_a_ledger_or_root_json_is_lost(tmp_path: Path, lost: str) -> None:
    root = packed_root.build(tmp_path / "root")
    compact(root)
    before, named = read_units(root), contents(tmp_path / "root")
    if lost == "sums":
        next((tmp_path / "root/sums").glob("downloads-*")).unlink()
    else:
        (tmp_path / "root/root.json").unlink()
    assert seal(Root(tmp_path / "root")) is None
    assert read_units(Root(tmp_path / "root")) == before and contents(tmp_path / "root") == named


def test_no_last_copy_is_deleted_with_what_an_interrupted_run_left(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    before = read_units(root)
    assert is_killed(lambda: compact(root), Killing(0, after=True))
    rel = f"samples/{BATCH}-000004.parquet"
    (tmp_path / "root" / rel).unlink()
    with pytest.raises(UserError, match=r"stand nowhere else: run `curate seal`"):
        compact(Root(tmp_path / "root"))
    assert seal(Root(tmp_path / "root")) is None
    compact(Root(tmp_path / "root"))
    assert read_units(Root(tmp_path / "root")) == before


def test_an_older_copy_that_an_interrupted_run_left_never_counts(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    assert is_killed(lambda: compact(root), Killing(0, after=True))
    changed, lost = (f"samples/{BATCH}-{number:06d}.parquet" for number in (2, 4))
    with sealing(root, ["samples"]) as recording:
        recording.publish_parquet(changed, root.read_parquet(changed).slice(0, 3))
    (tmp_path / "root" / lost).unlink()
    assert "is under no sum" in str(seal(Root(tmp_path / "root")))
    compact(Root(tmp_path / "root"))
    after = Root(tmp_path / "root")
    assert not after.exists(lost) and after.read_parquet(changed).num_rows == 3
    assert not after.own_sizes("samples/packed")


def test_a_root_without_sums_is_sealed_first(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.create()
    with pytest.raises(UserError, match="run `curate seal` first"):
        compact(root)


def test_forgetting_rows_of_packed_units_leaves_what_forgetting_them_before_leaves(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "plain")
    uids = sorted(made.samples)[:7]
    shutil.copytree(tmp_path / "plain", tmp_path / "packed")
    compact(Root(tmp_path / "packed"))
    for name in ("plain", "packed"):
        done = forget(Root(tmp_path / name), parse_requests(uids=uids), reason="request", date=DATE)
        assert done is not None and done.proof is not None and done.proof.holds
    assert removal.find_left(tmp_path / "packed", made, uids) == []
    found, wanted = contents(tmp_path / "packed"), contents(tmp_path / "plain")
    logs = {name for name in wanted if name.startswith("forget/")}  # say how many files were read, and how long it took
    assert {n: found[n] for n in found.keys() - logs} == {n: wanted[n] for n in wanted.keys() - logs}


def test_an_interrupted_compaction_hides_nothing_from_a_removal(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    uids = sorted(made.samples)[:2]
    assert is_killed(lambda: compact(Root(tmp_path / "root")), Killing(1, after=True))
    done = forget(Root(tmp_path / "root"), parse_requests(uids=uids), reason="request", date=DATE)
    assert done is not None and done.proof is not None and done.proof.holds
    assert removal.find_left(tmp_path / "root", made, uids) == []


def test_a_root_in_an_object_store_is_compacted_and_undone() -> None:
    with s3_server.s3() as endpoint:
        root = packed_root.build(Root("s3://curation/root", **s3_server.options(endpoint)))
        before = read_units(root)
        compact(root)
        assert standing(root) > JOINED
        again = Root("s3://curation/root", **s3_server.options(endpoint))
        assert read_units(again) == before and list(find_differences(again)) == []
        assert undo(again) == [] and set(before) == standing(again)
