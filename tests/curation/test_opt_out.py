"""Opt-out lists: what an entry covers, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from curation.opt_out import load

LIST = """
# people who asked
https://a.example/picture.jpg
Host.Example
sub.other.example.
0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef

  shop.example
"""


@pytest.mark.parametrize(
    "url, refused",
    [
        ("https://a.example/picture.jpg", True),
        ("https://a.example/picture.jpg?x", False),
        ("http://a.example/picture.jpg", False),
        ("http://host.example/any", True),
        ("http://HOST.EXAMPLE:8080/any", True),
        ("http://host.example./any", True),
        ("http://deep.below.host.example/any", True),
        ("http://user@host.example/any", True),
        ("http://nothost.example/any", False),
        ("http://example/any", False),
        ("http://other.example/any", False),
        ("http://sub.other.example/any", True),
        ("http://shop.example/", True),
        ("http://[::1/", False),
        ("", False),
    ],
)
def test_what_is_refused(tmp_path: Path, url: str, refused: bool) -> None:
    file = tmp_path / "list.txt"
    file.write_text(LIST)
    assert load([str(file)]).refuses_url(url) is refused


def test_lists_add_up_and_hashes_are_lower_case(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(LIST)
    second.write_text("ff" * 32 + "\r\nmore.example\r\n")
    found = load([str(first), str(second)])
    assert found.sha256s == {"0123456789abcdef" * 4, "ff" * 32}
    assert found.hosts >= {"more.example", "host.example"}
    assert load([]).refuses_url("http://a.example/") is False


def test_a_list_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load([str(tmp_path / "missing.txt")])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load([str(tmp_path / "binary")])
