"""Rows of downloads of an adopted picture: what is known of the fetched bytes, and which of repeated rows is taken."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from curation.adopt.pictures import AS_IT_IS, choose_rows, describe_picture
from curation.adopt.rows import AdoptedRow
from curation.images.process import process
from curation.schema import DOWNLOADS
from tests.support.hostile_pictures import jpeg

DATA = jpeg(60, 50)
SHA256 = hashlib.sha256(DATA).hexdigest()


def row(uid: str = "a", status: str = "success", **changes: Any) -> AdoptedRow:
    known: AdoptedRow = {
        "uid": uid,
        "key": "0",
        "status": status,
        "error_message": None,
        "sha256": None,
        "original_width": None,
        "original_height": None,
        "shard": "/x/00000.tar",
        "offset": 512,
        "size": len(DATA),
    }
    return known | changes  # type: ignore[return-value]


def test_a_success_stands_for_its_uid_and_else_the_first_row() -> None:
    rows = [row("a", "failed_to_download", key="0"), row("b", "failed_to_resize", key="1")]
    rows += [row("a", key="2"), row("a", key="3"), row("b", "failed_to_download", key="4")]
    assert [(chosen["uid"], chosen["key"]) for chosen in choose_rows(rows)] == [("a", "2"), ("b", "1")]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"sha256": None, "format": None, "num_bytes": None, "width": 60, "height": 50}),
        ({"sha256": SHA256}, {"sha256": SHA256, "format": "jpeg", "num_bytes": len(DATA)}),
        ({"sha256": "0" * 64}, {"sha256": "0" * 64, "format": None, "num_bytes": None}),
        ({"original_width": 600, "original_height": 500}, {"width": 600, "height": 500, "stored_width": 60}),
        ({"original_width": 0, "original_height": 500}, {"width": 60, "height": 50}),
        ({"original_width": 600}, {"width": 60, "height": 50}),
    ],
)
def test_only_what_is_known_of_the_fetched_picture_is_said(changes: dict[str, Any], wanted: dict[str, Any]) -> None:
    described = describe_picture(row(**changes), DATA, process(DATA, AS_IT_IS))
    assert list(described) == DOWNLOADS.names
    assert {name: dict(described)[name] for name in wanted} == wanted
    assert (described["status"], described["stored_sha256"]) == ("ok", SHA256)
