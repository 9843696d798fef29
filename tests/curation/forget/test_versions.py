"""Train shards, their index and what versions record: readers go on, and no stage finds anything to make again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.forget import forget
from curation.forget.requests import parse_requests
from curation.freshness import Fingerprints, find_stale
from curation.storage import Root
from curation.sums.seal import is_whole
from tests.support import removal
from tests.support.small_root import VERSION, SmallRoot


@pytest.fixture
def made(tmp_path: Path) -> SmallRoot:
    """A sealed root whose selection and index say what they were made from."""
    built = removal.build(tmp_path / "root")
    known = Fingerprints(built.root)
    inputs = {name: known.of(name) for name in ("samples", "downloads", "scores_caption_length")}
    for table in ("selection", "train", "train_index"):
        more = {} if table == "selection" else {"selection": VERSION}
        current = {**(built.root.current(table) or {}), "inputs": inputs | more}
        removal.publish(built.root, records={f"{table}/current.json": current})
    return SmallRoot(Root(built.root.base), built.samples, built.downloads, built.images, built.units)


def forget_packed(made: SmallRoot, number: int) -> tuple[Root, list[str]]:
    """The root without the first `number` rows of train_index, and those."""
    rows = made.root.read_parquet(f"train_index/{VERSION}/part-00000.parquet").to_pylist()
    uids = [row["uid"] for row in rows[:number]]
    assert forget(made.root, parse_requests(uids=uids), reason="request", date=removal.DATE) is not None
    return Root(made.root.base), uids


def test_versions_that_were_fresh_are_fresh_and_whole(made: SmallRoot) -> None:
    assert list(find_stale(made.root)) == []
    root, _ = forget_packed(made, 3)
    assert list(find_stale(root)) == []
    assert all(is_whole(root, table) for table in ("duplicates", "selection", "train", "train_index"))
    assert (root.current("train_index") or {})["fingerprint"] == VERSION


def test_a_version_that_was_stale_stays_stale(made: SmallRoot) -> None:
    current = made.root.current("selection") or {}
    stale = {**current, "inputs": {"samples": "sha256-0123456789ab"}}
    removal.publish(made.root, records={"selection/current.json": stale})
    root, _ = forget_packed(SmallRoot(Root(made.root.base)), 3)
    assert [sentence.partition(" ")[0] for sentence in find_stale(root)] == ["selection"]


def test_rows_that_stay_are_read_at_their_new_places(made: SmallRoot) -> None:
    root, gone = forget_packed(made, 3)
    rows = root.read_parquet(f"train_index/{VERSION}/part-00000.parquet").to_pylist()
    assert rows and not {row["uid"] for row in rows} & {*gone}
    for row in rows:
        assert root.read_bytes(row["shard"], row["offset"], row["size"]) == made.images[row["uid"]]
        assert root.read_bytes(row["shard"], row["txt_offset"], row["txt_size"]).decode() == (row["caption"] or "")
        assert json.loads(root.read_bytes(row["shard"], row["json_offset"], row["json_size"]))["uid"] == row["uid"]


def test_a_shard_gets_another_name_and_the_others_stay_as_they_are(made: SmallRoot) -> None:
    before = (made.root.current("train") or {})["files"]
    root, _ = forget_packed(made, 3)
    after = (root.current("train") or {})["files"]
    assert len(set(before) - set(after)) == 1 and len(after) == len(before)
    assert not root.exists((set(before) - set(after)).pop())
    sizes = root.read_json(f"train/{VERSION}/sizes.json")
    assert set(sizes) == {Path(rel).name for rel in after if rel.endswith(".tar")} and 5 in sizes.values()


def test_a_shard_without_rows_is_gone_from_everything(made: SmallRoot) -> None:
    root, _ = forget_packed(made, 8)
    sizes = root.read_json(f"train/{VERSION}/sizes.json")
    tars = {Path(rel).name for rel in (root.current("train") or {})["files"] if rel.endswith(".tar")}
    assert set(sizes) == tars == {name for name in root.list(f"train/{VERSION}", ".tar")}


def test_forgetting_again_renames_the_renamed_shard(made: SmallRoot) -> None:
    root, _ = forget_packed(made, 2)
    forget_packed(SmallRoot(root, images=made.images), 2)
    names = [name for name in Root(root.base).list(f"train/{VERSION}", ".tar") if "-000000" in name]
    assert len(names) == 1 and names[0].count("-") == 2
