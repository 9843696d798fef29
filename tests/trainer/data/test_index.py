"""The index: its arrays are the table's rows, in every process that maps it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.trainer import roots
from tests.support.trainer.damaged import index_rows
from tests.trainer.data.conftest import NUM_ROWS, Packed
from trainer.data.index import Index
from trainer.data.selection import Query, open_index


def _open(packed: Packed, **options: Any) -> Index:
    return open_index(Query(roots={"root": packed.root}, **options), packed.cache)


def test_each_array_is_a_column_of_the_table(packed: Packed) -> None:
    index, rows = _open(packed, verify=True), index_rows(packed.root)
    assert len(index) == len(rows) == NUM_ROWS
    assert index.uids(np.arange(NUM_ROWS)) == [row["uid"] for row in rows] == packed.uids
    assert index.offset.tolist() == [row["offset"] for row in rows]
    assert index.size.tolist() == [row["size"] for row in rows]
    assert [index.meta.shards[shard] for shard in index.shard] == [(0, row["shard"]) for row in rows]
    assert (index.offset + index.text_delta).tolist() == [row["txt_offset"] for row in rows]
    assert index.text_size.tolist() == [row["txt_size"] for row in rows]
    assert [digest.tobytes().hex() for digest in index.sha256] == [row["sha256"] for row in rows]


def test_an_index_is_at_most_forty_bytes_a_row(packed: Packed) -> None:
    assert _open(packed).num_bytes == 40 * NUM_ROWS
    assert _open(packed, verify=True).num_bytes == 40 * NUM_ROWS, "checksums are a file of their own"
    assert _open(packed, captions=("caption",)).num_bytes == 40 * NUM_ROWS


def test_another_process_maps_the_same_files(packed: Packed) -> None:
    index = _open(packed)
    sent = pickle.dumps(index)
    assert len(sent) < 1_000, "the folder's name and no array"
    found = pickle.loads(sent)
    assert found.meta == index.meta and np.array_equal(found.uid, index.uid)
    with pytest.raises(ValueError, match="read-only"):
        found.size[0] = 1


def test_the_first_caption_that_is_not_empty_is_taken(packed: Packed) -> None:
    index = _open(packed, captions=("top_caption", "caption"))
    for row in range(NUM_ROWS):
        top = f"top caption of {row}" if row % 2 == 0 else ""
        plain = roots.caption(row) or ""
        assert index.captions(row, (0, 1)) == (top or plain)
        assert index.captions(row, (1, 0)) == (plain or top)
        assert index.captions(row, (0,)) == top


def test_equal_digests_are_equal_rows_in_equal_order(packed: Packed, tmp_path: Path) -> None:
    again = open_index(Query(roots={"root": packed.root}), tmp_path)
    same = open_index(Query(roots={"root": packed.root}, where="score >= 0"), tmp_path)
    fewer = open_index(Query(roots={"root": packed.root}, where="score > 0"), tmp_path)
    assert again.meta.digest == same.meta.digest == _open(packed).meta.digest != fewer.meta.digest
    assert same.folder != again.folder
