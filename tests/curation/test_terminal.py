"""What others say reaches a terminal as text, never as a command to it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.terminal import EscapedSink, escape_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("back\rspace\x08", "back\\x0dspace\\x08"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("a\tb\nc", "a\tb\nc"),
        ("bücher 例", "bücher 例"),
    ],
)
def test_controls_are_shown_as_escapes(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


@given(st.text())
def test_what_is_escaped_stays_as_it_is(text: str) -> None:
    once = escape_controls(text)
    assert escape_controls(once) == once
    assert all(character in "\t\n" or ord(character) >= 32 for character in once)


def test_a_sink_escapes_characters_that_come_in_pieces() -> None:
    target = io.BytesIO()
    sink = EscapedSink(target)
    for byte in "é\x9b\x1b[31m例".encode():
        sink.write(bytes([byte]))
    assert target.getvalue().decode() == "é\\x9b\\x1b[31m例"
