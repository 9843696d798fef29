"""`curate move`: the same files elsewhere, whole or no root, and never over another root."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from curation.adopt import adopt
from curation.errors import UserError
from curation.moving import move
from curation.storage import Root
from curation.verify import find_differences
from tests.support import removal
from tests.support.removal import KilledError, Killing
from tests.support.rot import flip_in_pages
from tests.support.small_root import UNITS, SmallRoot, picture


@pytest.fixture
def made(tmp_path: Path) -> SmallRoot:
    """A sealed root with every stage behind it."""
    return removal.build(tmp_path / "root")


def test_every_file_arrives_and_the_new_root_is_whole(made: SmallRoot, tmp_path: Path) -> None:
    before = removal.contents(tmp_path / "root")
    assert move(made.root, Root(tmp_path / "new")) == len(before)
    assert removal.contents(tmp_path / "new") == before == removal.contents(tmp_path / "root")
    shutil.rmtree(tmp_path / "root")
    assert list(find_differences(Root(tmp_path / "new"))) == []


def test_a_move_to_a_store_and_back_changes_nothing(made: SmallRoot, tmp_path: Path) -> None:
    store = Root(f"memory://{tmp_path.name}/moved")
    move(made.root, store)
    assert list(find_differences(store)) == []
    move(store, Root(tmp_path / "back"))
    assert removal.contents(tmp_path / "back") == removal.contents(tmp_path / "root")


def test_a_kill_anywhere_leaves_no_root_and_the_command_again_finishes_it(made: SmallRoot, tmp_path: Path) -> None:
    wanted = removal.contents(tmp_path / "root")
    for number in range(0, len(wanted), 4):
        killing = Killing(number, after=number % 8 == 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Root, "put", lambda root, rel, data, k=killing: k.put(root, rel, data))
            with pytest.raises(KilledError):
                move(made.root, Root(tmp_path / "new"))
        assert not (tmp_path / "new" / "root.json").exists()
        move(made.root, Root(tmp_path / "new"))
        assert removal.contents(tmp_path / "new") == wanted
        shutil.rmtree(tmp_path / "new")


def test_a_damaged_file_is_not_carried_on(made: SmallRoot, tmp_path: Path) -> None:
    flip_in_pages(tmp_path / "root" / "downloads" / f"{UNITS[0]}.parquet")
    with pytest.raises(UserError, match="does not hold what was published"):
        move(made.root, Root(tmp_path / "new"))
    assert not (tmp_path / "new" / "root.json").exists()


def test_nothing_is_written_over(made: SmallRoot, tmp_path: Path) -> None:
    other = removal.build(tmp_path / "other")
    with pytest.raises(UserError, match="is a root already"):
        move(made.root, other.root)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        move(made.root, Root(tmp_path / "full"))


def test_adopted_pictures_inside_of_the_root_are_refused_and_others_stay(tmp_path: Path) -> None:
    for name in ("root", "elsewhere"):
        (tmp_path / name / "pictures").mkdir(parents=True)
        (tmp_path / name / "pictures" / "a.jpg").write_bytes(picture(3))
    outside = Root(tmp_path / "outside")
    adopt(outside, [str(tmp_path / "elsewhere")])
    move(outside, Root(tmp_path / "new"))
    assert list(find_differences(Root(tmp_path / "new"))) == []
    inside = Root(tmp_path / "root")
    inside.publish_record(outside.record())
    adopt(inside, [str(tmp_path / "root" / "pictures")])
    with pytest.raises(UserError, match="was adopted and lies in the root"):
        move(inside, Root(tmp_path / "newer"))
