"""Pictures that came before a list named them: found by URL, host and sha256, and not compared any more."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.compute as pc
import pytest

from curation.download.blocklist import BlocklistFiles
from curation.download.withdrawn import BLOCKLIST, NO_LISTS, OPT_OUT, Lists, describe_lists, find_withdrawn
from curation.errors import UserError
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
    assert _find(made, Lists(opt_out=(str(lists),))) == {by_url: "opted_out", by_sha256: "opted_out"}
    assert _find(made, NO_LISTS) == {}
    lists.write_text("*.test\n")
    assert sorted(_find(made, Lists(opt_out=(str(lists),)))) == came


def _find(made: SmallRoot, lists: Lists) -> dict[str, str]:
    return {row["uid"]: row["reason"] for row in find_withdrawn(made.root, UNITS[0], lists).to_pylist()}


def test_lists_count_by_their_entries(made: SmallRoot, tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("a.example\nb.example\n")
    second.write_text("# the same\nb.example\na.example\n")
    found = [describe_lists(Lists(opt_out=(str(path),)), made.root) for path in (first, second)]
    assert found[0] == found[1] and set(found[0]) == {OPT_OUT}
    second.write_text("a.example\n")
    assert describe_lists(Lists(opt_out=(str(second),)), made.root) != found[0]
    assert describe_lists(NO_LISTS, made.root) == {}


def _blocklist(name: str, path: Path, max_hamming: int = 0) -> Lists:
    return Lists(blocklists=(BlocklistFiles(name=name, paths=(str(path),), max_hamming=max_hamming),))


def test_pictures_of_a_blocklist_are_found_by_host_sum_and_hash(made: SmallRoot, tmp_path: Path) -> None:
    came = sorted(uid for uid in made.images if made.units[uid] == UNITS[0])
    file = tmp_path / "list.txt"
    for uid in came[:3]:
        row = made.downloads[uid]
        entries = [made.samples[uid]["url"], row["sha256"].upper(), row["phash"], f"{int(row['phash'], 16) ^ 5:016x}"]
        for number, entry in enumerate(entries):
            file.write_text(f"nobody.test\n{entry}  # why\n")
            found = _find(made, _blocklist("bad", file, max_hamming=2))
            alike = {
                other
                for other in came
                if (int(made.downloads[other]["phash"], 16) ^ int(row["phash"], 16)).bit_count() <= 4
            }
            assert uid in found and set(found.values()) == {"blocklist:bad"}
            assert set(found) <= (alike if number > 1 else {uid})
    file.write_text("*.test\n")
    assert sorted(_find(made, _blocklist("hosts", file))) == came


def test_the_first_list_that_names_a_picture_says_why(made: SmallRoot, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("*.test\n")
    both = tuple(BlocklistFiles(name=name, paths=(str(file),), max_hamming=0) for name in ("a", "b"))
    assert set(_find(made, Lists(blocklists=both)).values()) == {"blocklist:a"}
    assert set(_find(made, Lists(opt_out=(str(file),), blocklists=both)).values()) == {"opted_out"}


def test_md5_sums_are_compared_with_pictures_stored_as_they_were_fetched(made: SmallRoot, tmp_path: Path) -> None:
    uid = min(uid for uid in made.images if made.units[uid] == UNITS[0])
    file = tmp_path / "list.txt"
    file.write_text(hashlib.md5(made.images[uid]).hexdigest() + "\n")
    lists = _blocklist("bad", file)
    assert set(describe_lists(lists, made.root)) == {f"{BLOCKLIST}bad"}
    assert _find(made, lists) == {uid: "blocklist:bad"}
    rel = f"downloads/{UNITS[1]}.parquet"
    rows = made.root.read_parquet(rel)
    fetched = pc.if_else(pc.equal(rows["status"], "ok"), "0" * 64, None)
    made.root.publish_parquet(rel, rows.set_column(rows.column_names.index("sha256"), "sha256", fetched))
    with pytest.raises(UserError, match=f"blocklist bad has md5 sums, and pictures of unit {UNITS[1]} are not stored"):
        describe_lists(lists, made.root)
