"""Pictures that came before a list named them: found by URL, host and sha256, and not compared any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.download.withdrawn import OPT_OUT, describe_opt_out, find_withdrawn
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


def test_pictures_that_a_list_names_by_now_are_found(made: SmallRoot, tmp_path: Path) -> None:
    came = sorted(uid for uid in made.images if made.units[uid] == UNITS[0])
    lost = next(uid for uid, row in made.downloads.items() if row["status"] != "ok" and made.units[uid] == UNITS[0])
    by_url, by_sha256 = came[:2]
    lists = tmp_path / "list.txt"
    urls = f"{made.samples[by_url]['url']}\n{made.samples[lost]['url']}\n"
    lists.write_text(f"{urls}{made.downloads[by_sha256]['sha256']}\n")
    assert find_withdrawn(made.root, UNITS[0], [str(lists)]).to_pylist() == [by_url, by_sha256]
    assert find_withdrawn(made.root, UNITS[0], []).to_pylist() == []
    lists.write_text("*.test\n")
    assert sorted(find_withdrawn(made.root, UNITS[0], [str(lists)]).to_pylist()) == came


def test_lists_count_by_their_entries(made: SmallRoot, tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("a.example\nb.example\n")
    second.write_text("# the same\nb.example\na.example\n")
    found = [describe_opt_out([str(path)], made.root) for path in (first, second)]
    assert found[0] == found[1] and set(found[0]) == {OPT_OUT}
    second.write_text("a.example\n")
    assert describe_opt_out([str(second)], made.root) != found[0]
    assert describe_opt_out([], made.root) == {}
