"""What the JSON and the text beside a picture say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from curation.adopt.records import parse_record


@pytest.mark.parametrize(
    ("said", "text", "caption"),
    [
        ({"caption": "json"}, b"text", "json"),
        ({"caption": None}, b"text", "text"),
        ({"caption": ""}, b"", None),
        ({"captions": ["one", "two"]}, None, "one"),
        ({"caption": ["", None, "second"]}, None, "second"),
        ({"caption": []}, b"text", "text"),
        ({"caption": {"nested": "x"}}, b"text", "text"),
        ({"TEXT": "upper"}, None, "upper"),
        ({"caption": 7}, None, "7"),
        ({}, b"\xef\xbb\xbfwith a mark", "with a mark"),
        ({}, None, None),
    ],
)
def test_the_first_caption_that_is_not_empty_counts(said: dict[str, Any], text: bytes | None, caption: str) -> None:
    record = parse_record(json.dumps(said).encode(), text)
    assert record.values["caption"] == caption and record.is_text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b'{"caption": "a party \\ud83c"}', None),
        (b'{"url": "http://a.test/\\udfff"}', None),
        (b'{"caption": "caf\xe9"}', None),
        (None, b"caf\xe9"),
        (None, "utf-16".encode("utf-16")),
    ],
)
def test_a_caption_or_url_that_is_no_utf8_is_no_text(said: bytes | None, text: bytes | None) -> None:
    assert not parse_record(said, text).is_text


def test_another_value_that_is_no_utf8_is_unknown() -> None:
    record = parse_record(b'{"caption": "x", "license": "\\ud83c", "similarity": 0.25, "list": [1]}', None)
    assert record.is_text and dict(record.values) == {"caption": "x", "similarity": "0.25"}


@pytest.mark.parametrize(
    "said",
    [b"{ torn", b"[1, 2]", b'{"a":' * 100_000, b"[" * 100_000, b'{"n": ' + b"9" * 5_000 + b"}", b"\xff\xfe\x00", b""],
)
def test_json_that_cannot_be_read_says_nothing(said: bytes) -> None:
    assert dict(parse_record(said, b"the text").values) == {"caption": "the text"}
