"""Files of lines: where a line ends, and that its number stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from trainer.evaluation import lines

SEPARATORS = ["\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c", "\r"]
"""What `str.splitlines` ends a line at and no file of names means by it."""


@pytest.mark.parametrize("inside", SEPARATORS)
def test_a_line_is_what_a_line_feed_ends(inside: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(f"St. John{inside}s wort\ndog\n".encode())
    assert lines.read_names(tmp_path / "names") == (f"St. John{inside}s wort", "dog")


def test_a_byte_order_mark_and_carriage_returns_are_none_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"\xef\xbb\xbfcat\r\n dog \r\nbird")
    assert lines.read_names(tmp_path / "names") == ("cat", "dog", "bird")


def test_a_blank_line_among_names_is_refused_and_one_at_the_end_is_none(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("cat\ndog\n\n \n")
    assert lines.read_names(tmp_path / "names") == ("cat", "dog")
    (tmp_path / "names").write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match="Line 2 of .*names is blank, so class 1 has no name"):
        lines.read_names(tmp_path / "names")


def test_a_word_has_a_default_and_text_has_to_be_text(tmp_path: Path) -> None:
    assert lines.read_word(tmp_path / "absent", "7") == "7"
    (tmp_path / "blank").write_text("\n \n")
    assert lines.read_word(tmp_path / "blank", "7") == "7"
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="bytes is not UTF-8 text"):
        lines.read_word(tmp_path / "bytes", "7")
    with pytest.raises(UserError, match="cannot be read"):
        lines.read_lines(tmp_path)
