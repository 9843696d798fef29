"""What is read of a unit, as numbers, and the columns that units make together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation.deduplication.order import order_rows, split_terms
from curation.deduplication.scan import UNKNOWN, Columns, Wanted, scan_unit
from curation.download.withdrawn import NO_LISTS
from curation.duplicates.keep import parse_keep
from curation.errors import UserError
from curation.storage import Root
from tests.support.hashed_root import HASH, Row, fill, near, sha

ROWS: list[Row] = [
    {
        "sha256": sha(1), "pixel_sha256": sha(2), "phash": near(HASH), "entropy": 5.0, "source": "b",
        "width": 2**31 - 1, "height": 2**31 - 1,
    },
    {"sha256": sha(1).upper(), "phash": "FF", "entropy": 1.0, "source": "a", "width": 5, "height": None},
    {"sha256": None, "phash": None, "entropy": 1.0, "source": None, "width": 0, "height": 7},
    {"status": "http_404"},
]  # fmt: skip


def wanted(*keep: str) -> Wanted:
    terms, _ = split_terms(parse_keep(keep))
    return Wanted(terms=terms, lists=NO_LISTS, min_entropy=4.0, exact=True, perceptual=True, same_caption=True)


def scan(root: Root, folder: Path, *keep: str) -> Columns:
    columns = Columns(folder)
    for unit in root.units("downloads"):
        columns.append(scan_unit(root, wanted(*keep), unit), wanted(*keep).terms)
    return columns


def test_sums_are_told_apart_as_their_texts_are(root: Root, tmp_path: Path) -> None:
    fill(root, ROWS, num_units=1)
    columns = scan(root, tmp_path)
    uids = [bytes(row.astype(">u8")).hex() for row in columns.map("uid")]
    assert uids == [
        u for u in root.read_parquet("samples/0123abcd-000000.parquet", ["uid"])["uid"].to_pylist() if u in uids
    ]
    sums = {bytes(row.astype(">u8")).hex() for row in columns.map("sha256")}
    assert len(sums) == columns.num_rows == 3 and sha(1)[:32] in sums and sums & set(uids)
    assert sorted(columns.read("content").any(axis=1).tolist()) == [False, False, True]


def test_plain_pictures_and_odd_hashes_are_counted_and_not_compared(root: Root, tmp_path: Path) -> None:
    fill(root, ROWS, num_units=1)
    columns = scan(root, tmp_path)
    assert columns.num_too_plain == 2
    assert columns.read("phash")[columns.read("has_phash")].tolist() == [HASH]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("source", ["a", "b", None]),
        ("source desc", ["b", "a", None]),
        ("resolution", [None, "b", "a"]),
        ("resolution desc", ["b", None, "a"]),
    ],
)
def test_units_are_ordered_together_unknown_values_last(
    root: Root, tmp_path: Path, keep: str, expected: list[str | None]
) -> None:
    fill(root, ROWS, num_units=4)
    columns = scan(root, tmp_path, keep, "source")
    terms, uid_descending = split_terms(parse_keep([keep, "source"]))
    names = {number: source for source, number in columns.sources.items()}
    numbers = columns.read("key-1")[order_rows(columns, terms, uid_descending)]
    assert [None if number == UNKNOWN else names[int(number)] for number in numbers] == expected


def test_captions_are_numbered_without_case_and_outer_spaces(root: Root, tmp_path: Path) -> None:
    fill(root, [{"caption": text} for text in ("A dog", " a DOG ", None, "", "\ta dog")], num_units=2)
    assert len(np.unique(scan(root, tmp_path).read("text"))) == 3


def test_a_uid_that_is_none_is_refused(root: Root, tmp_path: Path) -> None:
    fill(root, ROWS, num_units=1)
    rel = "downloads/0123abcd-000000.parquet"
    rows = root.read_parquet(rel)
    root.publish_parquet(rel, rows.set_column(0, rows.schema.field("uid"), [["no uid"] * len(rows)]))
    with pytest.raises(UserError, match="32 digits"):
        scan(root, tmp_path)
