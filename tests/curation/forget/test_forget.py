"""`curate forget`: the rows are gone from every file, everything else stays, and a kill anywhere changes nothing."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from curation.download.tombstones import read_tombstones
from curation.errors import UserError
from curation.forget import Removal, forget, resume
from curation.forget.requests import Requests, parse_requests
from curation.scratch import name_scratch
from curation.storage import PENDING_REMOVAL, Root
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from curation.verify import find_differences
from tests.support import removal, s3_server, small_root
from tests.support.removal import DATE, KilledError, Killing
from tests.support.small_root import SmallRoot


@pytest.fixture
def made(tmp_path: Path) -> SmallRoot:
    """A sealed root with every stage behind it."""
    return removal.build(tmp_path / "root")


def ask(root: Root, requests: Requests, **options: bool) -> Removal | None:
    """Forget, on a fixed day."""
    return forget(root, requests, reason="request", date=DATE, **options)


def test_ten_random_rows_leave_nothing_and_the_root_stays_whole(made: SmallRoot, tmp_path: Path) -> None:
    folder = tmp_path / "root"
    uids = random.Random(5).sample(sorted(made.samples), 10)
    kept = {uid: image for uid, image in made.images.items() if uid not in uids}
    assert removal.find_left(folder, made, uids)
    done = ask(made.root, parse_requests(uids=uids))
    assert done is not None and done.proof is not None and done.proof.holds and done.unknown == ()
    assert removal.find_left(folder, made, uids) == []
    assert list(find_differences(Root(folder))) == []
    assert sum(Root(folder).read_parquet(f"samples/{u}.parquet").num_rows for u in Root(folder).units("samples")) == 30
    after = Root(folder)
    for row in (r for u in after.units("downloads") for r in after.read_parquet(f"downloads/{u}.parquet").to_pylist()):
        if row["status"] == "ok":
            assert after.read_bytes(row["shard"], row["offset"], row["size"]) == kept.pop(row["uid"])
    assert not kept and not made.root.exists(PENDING_REMOVAL)


def test_the_same_request_again_touches_no_file(made: SmallRoot, tmp_path: Path) -> None:
    requests = parse_requests(uids=sorted(made.samples)[:3])
    ask(made.root, requests)
    before = removal.contents(tmp_path / "root")
    assert ask(Root(tmp_path / "root"), requests) is None
    assert removal.contents(tmp_path / "root") == before


def forget_with_kill(folder: Path, uids: list[str], killing: Killing) -> bool:
    """Forget `uids`, killed as `killing` says and then run again; whether it was killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Root, "put", lambda root, rel, data: killing.put(root, rel, data))
        patch.setattr(Root, "delete", lambda root, rel: killing.delete(root, rel))
        try:
            ask(Root(folder), parse_requests(uids=uids))
        except KilledError:
            patch.undo()
            resume(Root(folder))
            ask(Root(folder), parse_requests(uids=uids))
            return True
    return False


@pytest.mark.parametrize(
    ("after", "step"),
    [
        (True, 23),
        (False, 29),
        pytest.param(True, 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_step_and_the_command_again_end_in_the_same_bytes(tmp_path: Path, after: bool, step: int) -> None:
    made = removal.build(tmp_path / "before")
    uids = random.Random(3).sample(sorted(made.samples), 10)
    shutil.copytree(tmp_path / "before", tmp_path / "undisturbed")
    counting = Killing(None, after=after)
    assert not forget_with_kill(tmp_path / "undisturbed", uids, counting)
    wanted = removal.contents(tmp_path / "undisturbed")
    assert counting.count > 40
    for number in range(0, counting.count, step):
        shutil.copytree(tmp_path / "before", tmp_path / "killed")
        assert forget_with_kill(tmp_path / "killed", uids, Killing(number, after=after))
        found = removal.contents(tmp_path / "killed")
        assert found.keys() == wanted.keys(), number
        assert [name for name in wanted if found[name] != wanted[name]] == [], number
        shutil.rmtree(tmp_path / "killed")


def test_a_half_done_removal_is_named_by_every_other_command(made: SmallRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    killing = Killing(8, after=True)
    with monkeypatch.context() as patch:
        patch.setattr(Root, "put", lambda root, rel, data: killing.put(root, rel, data))
        with pytest.raises(KilledError):
            ask(made.root, parse_requests(uids=sorted(made.samples)[:3]))
    with pytest.raises(UserError, match=r"`curate forget` was interrupted: run `curate forget "):
        Root(made.root.base).check_format()
    assert len(resume(Root(made.root.base))) == 1
    Root(made.root.base).check_format()


def test_the_record_holds_hashes_alone_and_says_what_was_read(made: SmallRoot, tmp_path: Path) -> None:
    uids = sorted(made.samples)[:3]
    ask(made.root, parse_requests(uids=uids, urls=["http://nowhere.test/1.jpg"]))
    (log,) = (tmp_path / "root" / "logs" / "forget").iterdir()
    said = json.loads(log.read_text())
    assert said["num_rows"] == 3 and said["num_unknown_requests"] == 1 and said["reason"] == "request"
    assert said["proof"]["holds"] and said["proof"]["num_files"] > 20 and len(said["tombstones"]) == 4
    assert "nowhere" not in log.read_text() and not any(uid in log.read_text() for uid in uids)


@pytest.mark.slow
def test_a_root_on_an_object_store_forgets_as_a_folder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with s3_server.s3() as endpoint:
        root = Root("s3://curation/run", **s3_server.options(endpoint))
        root.create(sealed=True)
        made = small_root.finish(root)
        seal_root(root, summed_tables(root))
        uids = sorted(made.images)[:4]
        left = [Path(root.scratch(), f"{name_scratch(root, stage)}left") for stage in ("raw", "ingest", "pack", "move")]
        others = Path(root.scratch(), f"{name_scratch(Root(tmp_path / 'other'), 'raw')}left")
        for folder in (*left, others):
            folder.mkdir()
            (folder / "shard.tar").write_bytes(made.images[uids[0]])
        done = ask(root, parse_requests(uids=uids))
        assert done is not None and done.proof is not None and done.proof.holds and done.proof.num_files > 20
        assert others.exists() and not [folder for folder in left if folder.exists()]
        again = Root("s3://curation/run", **s3_server.options(endpoint))
        assert list(find_differences(again)) == []
        stored = [again.fs.cat_file(path) for path in again.fs.find("curation/run")]
        assert not [uid for uid in uids for data in stored if made.images[uid] in data or uid.encode() in data]


def test_tombstones_that_were_deleted_are_missed_before_anything_comes_back(made: SmallRoot, tmp_path: Path) -> None:
    ask(made.root, parse_requests(uids=sorted(made.samples)[:1]))
    (tmp_path / "root" / "forgotten" / "tombstones.parquet").unlink()
    with pytest.raises(UserError, match=r"tombstones.parquet is missing: restore it from a copy"):
        read_tombstones(Root(tmp_path / "root"))
