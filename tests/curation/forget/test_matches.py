"""Which rows a request names: by uid, URL in any spelling, host and the hosts below it, sha256, and copies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.forget.matches import find_answered, find_matches
from curation.forget.requests import describe_unknown, parse_requests
from tests.support import removal
from tests.support.small_root import VERSION, SmallRoot


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRoot:
    """A sealed root, which these tests only read."""
    return removal.build(tmp_path_factory.mktemp("matches") / "root")


def named(made: SmallRoot, with_copies: bool = False, **asked: list[str]) -> set[str]:
    """The uids that a request names."""
    return {match.uid for match in find_matches(made.root, parse_requests(**asked), with_copies)}


def test_a_url_counts_in_every_spelling(made: SmallRoot) -> None:
    row = next(iter(made.samples.values()))
    spelled = row["url"].replace("http://host", "HTTP://HOST").replace(".test/", ".test:80/./")
    assert spelled != row["url"] and named(made, urls=[spelled]) == {row["uid"]}


def test_a_host_stands_for_the_hosts_below_it(made: SmallRoot) -> None:
    mine = {uid for uid, row in made.samples.items() if "//host3.test/" in row["url"]}
    assert named(made, hosts=["host3.test"]) == mine == named(made, hosts=["*.host3.test"])
    assert named(made, hosts=["www.host3.test"]) == set() and named(made, hosts=["*.test"]) == set(made.samples)


def test_a_sha256_names_the_rows_whose_picture_has_it(made: SmallRoot) -> None:
    uid = sorted(made.images)[4]
    assert named(made, sums=[made.downloads[uid]["sha256"].upper()]) == {uid}


def test_copies_are_the_rows_that_duplicates_name_together(made: SmallRoot) -> None:
    (row,) = made.root.read_parquet(f"duplicates/{VERSION}/part-00000.parquet").to_pylist()
    pair = {row["uid"], row["kept_uid"]}
    assert named(made, True, uids=[row["uid"]]) == pair == named(made, True, uids=[row["kept_uid"]])
    assert named(made, uids=[row["kept_uid"]]) == {row["kept_uid"]}


def test_a_list_holds_everything_and_what_nothing_answers_to_is_named(made: SmallRoot, tmp_path: Path) -> None:
    uid, other = sorted(made.samples)[:2]
    lines = [f"{uid}  # by mail", made.samples[other]["url"], "", "*.nowhere.test", "0" * 64, "f" * 32]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    requests = parse_requests(lists=[str(tmp_path / "list.txt")])
    matches = find_matches(made.root, requests, with_copies=False)
    assert {match.uid for match in matches} == {uid, other}
    assert describe_unknown(requests, find_answered(requests, matches)) == ["*.nowhere.test", "0" * 64, "f" * 32]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "Nothing is named to be forgotten"),
        ({"uids": ["12"]}, "--uid '12' is not 32 hexadecimal digits."),
        ({"sums": ["zz"]}, "--sha256 'zz' is not 64 hexadecimal digits."),
        ({"urls": ["photo.jpg"]}, "--url 'photo.jpg' is no URL"),
        ({"hosts": ["http://a.test/b.jpg"]}, "is no host (a URL, so use --url)."),
        ({"hosts": ["word"]}, "is no host (a single word, so write *.word if it is a host)."),
        (
            {"lists": ["none.txt"]},
            "The list none.txt cannot be read (No such file or directory): name a text file",
        ),
    ],
)
def test_what_is_no_request_is_one_sentence(asked: dict[str, list[str]], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        parse_requests(**asked)


def test_a_wrong_line_of_a_list_is_named_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("example.org\nphoto\n")
    with pytest.raises(UserError, match="has 'photo' in line 2: a single word"):
        parse_requests(lists=[str(tmp_path / "list.txt")])
