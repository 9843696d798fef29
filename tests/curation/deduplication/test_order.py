"""Rows in the order of a keep rule, and exact copies of a better row, from columns that are read by pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curation import sorting
from curation.deduplication.order import fold_exact_copies, order_rows, split_terms
from curation.deduplication.scan import UNKNOWN, Columns, Scanned
from curation.duplicates.keep import parse_keep

NUM_ROWS = 500


@pytest.fixture(params=[7, sorting.PIECE_ROWS], autouse=True)
def piece_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sorting, "PIECE_ROWS", request.param)
    monkeypatch.setattr(sorting, "RANGE_ROWS", request.param)
    yield


def draw(num_values: int, *, is_pair: bool = False) -> np.ndarray:
    """Numbers that come several times, uint64 `[NUM_ROWS]` or `[NUM_ROWS, 2]`."""
    rng = np.random.default_rng(num_values)
    values = rng.integers(0, 2**64 - 2, (num_values, 2) if is_pair else num_values, np.uint64)
    return values[rng.integers(0, num_values, NUM_ROWS)]


def store(folder: Path, **columns: np.ndarray) -> Columns:
    stored = Columns(folder)
    stored.append(Scanned(columns=columns, sources=[], num_too_plain=0), ())
    return stored


@pytest.mark.parametrize("rule", ["uid", "uid desc"])
def test_unknown_values_come_last_and_equal_ones_by_uid(tmp_path: Path, rule: str) -> None:
    terms, descending = split_terms(parse_keep(["num_bytes", rule]))
    keys, uids = draw(20), draw(400, is_pair=True)
    keys[::3] = UNKNOWN
    columns = Columns(tmp_path)
    part = {"uid": uids, "key-0": keys}
    columns.append(Scanned(columns=part, sources=[], num_too_plain=0), terms)
    sign = -1 if descending else 1
    rows = [(int(key), sign * int(high), sign * int(low)) for key, (high, low) in zip(keys, uids, strict=True)]
    assert [rows[place] for place in order_rows(columns, terms, descending)] == sorted(rows)


def test_a_key_that_no_row_has_leaves_the_order_to_the_uid(tmp_path: Path) -> None:
    terms, descending = split_terms(parse_keep(["num_bytes", "uid"]))
    columns = Columns(tmp_path)
    uids = np.arange(2 * NUM_ROWS, dtype=np.uint64)[::-1].reshape(-1, 2)
    part = {"uid": uids, "key-0": np.full(NUM_ROWS, UNKNOWN)}
    columns.append(Scanned(columns=part, sources=[], num_too_plain=0), terms)
    assert order_rows(columns, terms, descending).tolist() == list(range(NUM_ROWS))[::-1]


@pytest.mark.parametrize("with_texts", [False, True])
def test_copies_are_folded_into_the_best_row_of_their_bytes_or_pixels(tmp_path: Path, with_texts: bool) -> None:
    sums, pixels = draw(120, is_pair=True), draw(90, is_pair=True)
    pixels[np.random.default_rng(0).random(NUM_ROWS) < 0.6] = 0
    texts = draw(3).view(np.int64)
    row_of = np.random.default_rng(1).permutation(NUM_ROWS).astype(np.uint32)
    own = {"text": texts} if with_texts else {}
    columns = store(tmp_path, uid=draw(NUM_ROWS, is_pair=True), sha256=sums, content=pixels, **own)
    columns.write("row", row_of)
    copies, best = fold_exact_copies(columns)

    by_sum: dict[tuple[int, ...], tuple[int, ...]] = {}
    for name, pixel in zip(map(tuple, sums.tolist()), map(tuple, pixels.tolist()), strict=True):
        by_sum[name] = max(by_sum.get(name, (0, 0)), pixel)
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, name in enumerate(map(tuple, sums.tolist())):
        content = by_sum[name] if any(by_sum[name]) else name
        groups.setdefault((content, int(texts[place]) if with_texts else 0), []).append(int(row_of[place]))
    expected = {row: min(rows) for rows in groups.values() for row in rows if row != min(rows)}
    assert dict(zip(copies.tolist(), best.tolist(), strict=True)) == expected
    assert len(copies) == len(expected)
