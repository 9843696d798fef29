"""Blocklists: entries of every kind, and lines that are none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from curation.download.blocklist import Blocklist, BlocklistFiles, check_blocklist, load_blocklist
from curation.errors import UserError
from tests.support.command import contents

SHA256, MD5, PHASH = "0123456789abcdef" * 4, hashlib.md5(b"picture").hexdigest(), "F0E1d2c3b4a59687"
LINES = ["host.example", "http://other.example/a.jpg", SHA256, f"{MD5}  # seen", PHASH]
ENTRIES = "\n".join(LINES)


def files(folder: Path, text: str, max_hamming: int = 0) -> BlocklistFiles:
    (folder / "list.txt").write_text(text)
    return BlocklistFiles(name="bad", paths=(str(folder / "list.txt"),), max_hamming=max_hamming)


def load(folder: Path, text: str, max_hamming: int = 0) -> Blocklist:
    return load_blocklist(files(folder, text, max_hamming), folder)


def test_entries_of_every_kind_are_found_and_what_is_beside_them_is_not(tmp_path: Path) -> None:
    listed = load(tmp_path, ENTRIES, max_hamming=2)
    assert listed.addresses.refuses_url("https://www.host.example/x")
    assert listed.addresses.refuses_url("http://OTHER.example/a.jpg")
    assert not listed.addresses.refuses_url("http://other.example/b.jpg")
    assert listed.sums.refuses_sha256(SHA256) and not listed.sums.refuses_sha256("0" * 64)
    assert listed.has_md5 and listed.has_md5_of(b"picture") and not listed.has_md5_of(b"another")
    value = int(PHASH, 16)
    assert listed.has_near(np.array([value, value ^ 3, value ^ 7], np.uint64)).tolist() == [True, True, False]


def test_a_list_of_hosts_alone_asks_for_no_sums_and_no_hashes(tmp_path: Path) -> None:
    listed = load(tmp_path, "host.example\n")
    assert listed.sums.is_empty and not listed.has_md5 and not listed.has_hashes and not listed.addresses.is_empty
    assert load(tmp_path, f"{PHASH}\n").addresses.is_empty


@pytest.mark.parametrize("line", ["deadbeef", "0123456789abcdeg", f"{SHA256}0", "path/without/scheme", "a b.example"])
def test_a_line_that_names_nothing_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    wrong = files(tmp_path, f"host.example\n\n{line}\n")
    for read in (check_blocklist, load_blocklist):
        with pytest.raises(UserError, match=r"The blocklist bad .*list\.txt has .* in line 3: "):
            read(wrong, tmp_path)


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    missing = BlocklistFiles(name="bad", paths=(str(tmp_path / "none.txt"),), max_hamming=0)
    with pytest.raises(UserError, match=r"The blocklist bad .*none\.txt cannot be read"):
        check_blocklist(missing, tmp_path)


def test_checking_writes_nothing(tmp_path: Path) -> None:
    given = files(tmp_path, ENTRIES)
    before = contents(tmp_path)
    check_blocklist(given, tmp_path)
    assert contents(tmp_path) == before


def test_lists_are_told_apart_by_what_they_name(tmp_path: Path) -> None:
    digest = load(tmp_path, ENTRIES, 2).digest()
    others = ["HOST.example.", "http://other.example:80/a.jpg", SHA256.upper(), MD5.upper(), f"{PHASH.upper()} # x"]
    assert load(tmp_path, "\n".join([*reversed(others), ""]), 2).digest() == digest
    assert load(tmp_path, ENTRIES, 3).digest() != digest
    assert load(tmp_path, ENTRIES + "\nmore.example\n", 2).digest() != digest
    assert load(tmp_path, "a.example\n", 2).digest() == load(tmp_path, "a.example\na.example\n", 3).digest()
