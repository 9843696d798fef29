"""What the JSON and the text beside a picture say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from curation.adopt.caption_columns import MAX_CAPTIONS
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
    record = parse_record(json.dumps(said).encode(), [text] if text else [])
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
    assert not parse_record(said, [text] if text else []).is_text


def test_another_value_that_is_no_utf8_is_unknown() -> None:
    record = parse_record(b'{"caption": "x", "license": "\\ud83c", "similarity": 0.25, "list": [1]}')
    assert record.is_text and dict(record.values) == {"caption": "x", "similarity": "0.25"}


@pytest.mark.parametrize(
    "said",
    [b"{ torn", b"[1, 2]", b'{"a":' * 100_000, b"[" * 100_000, b'{"n": ' + b"9" * 5_000 + b"}", b"\xff\xfe\x00", b""],
)
def test_json_that_cannot_be_read_says_nothing(said: bytes) -> None:
    assert dict(parse_record(said, [b"the text"]).values) == {"caption": "the text"}


def test_further_captions_are_kept_each_once() -> None:
    said = {"caption": "a", "captions": ["", "a", ["b", None]], "Caption_3": "d", "caption_2": "c", "similarity": 1}
    record = parse_record(json.dumps(said).encode(), [b"a", b"e", b"caf\xe9"])
    assert record.is_text, "one that is no UTF-8 is left out where there are others"
    captions = {"caption": "a", "caption_2": "b", "caption_3": "c", "caption_4": "d", "caption_5": "e"}
    assert dict(record.values) == captions | {"similarity": "1"}


def test_not_more_captions_are_kept_than_a_table_can_bear() -> None:
    record = parse_record(json.dumps({"captions": [f"caption {n}" for n in range(10_000)]}).encode())
    assert len(record.values) == MAX_CAPTIONS
