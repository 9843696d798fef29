"""`curate gc`: it lists, and deletes when told to, exactly the versions that nothing current names."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.garbage import delete_versions, describe_versions, find_old_versions
from curation.storage import Root
from curation.verify import verify
from tests.support import small_root
from tests.support.small_root import VERSION, SmallRoot

OLD, OLDER = "0123456789ab", "ba9876543210"


@pytest.fixture
def made(root: Root) -> SmallRoot:
    """A packed root with two old versions of its train shards and one of its selection."""
    built = small_root.build(root)
    small_root.pack(built, small_root.select(built))
    for rel in (f"train/{OLD}/{OLD}-000000.tar", f"train/{OLDER}/sizes.json", f"train_index/{OLD}/x.parquet"):
        root.publish(rel, b"12345")
    root.publish(f"selection/{OLD}/u.parquet", b"1234567")
    root.publish("selection/notes.txt", b"mine")
    root.publish(f"duplicates/{OLD}/part-00000.parquet", b"unfinished")
    return built


def test_the_versions_that_nothing_names_are_listed_with_their_bytes(made: SmallRoot) -> None:
    found = {version.rel: (version.num_files, version.num_bytes) for version in find_old_versions(made.root)}
    assert found == {
        f"selection/{OLD}": (1, 7),
        f"train/{OLD}": (1, 5),
        f"train/{OLDER}": (1, 5),
        f"train_index/{OLD}": (1, 5),
    }
    text = describe_versions(find_old_versions(made.root), deleted=False)
    assert "4 files                  22 bytes in 4 old versions: `curate gc ROOT --yes` deletes them" in text


def test_deleting_leaves_what_is_current_whole(made: SmallRoot) -> None:
    delete_versions(made.root, find_old_versions(made.root))
    assert find_old_versions(made.root) == [] and verify(made.root) is None
    assert made.root.exists("selection/notes.txt") and made.root.exists(f"duplicates/{OLD}")
    assert describe_versions([], deleted=True).startswith("No old version")


def test_a_kill_between_shards_and_index_costs_neither(made: SmallRoot) -> None:
    """Pack names new shards first; until it names their index, the old index lies in the old shards."""
    made.root.publish_current("train", OLD, [f"train/{OLD}/{OLD}-000000.tar"], {}, {})
    assert {version.rel for version in find_old_versions(made.root)} == {f"selection/{OLD}", f"train/{OLDER}"}
    assert Path(made.root.full(f"train/{VERSION}")).is_dir()


def test_a_kill_while_deleting_leaves_the_rest_for_the_next_time(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = find_old_versions(made.root)
    remove, calls = made.root.remove, list[str]()

    def die_at_the_second(rel: str) -> None:
        calls.append(rel)
        if len(calls) == 2:
            raise KeyboardInterrupt
        remove(rel)

    monkeypatch.setattr(made.root, "remove", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        delete_versions(made.root, versions)
    monkeypatch.undo()
    left = find_old_versions(made.root)
    assert left == versions[1:] and verify(made.root) is None
    delete_versions(made.root, left)
    assert find_old_versions(made.root) == []
