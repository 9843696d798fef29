"""Which of the rows of several shards become samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.adopt.planning import Keys, choose_rows, split_uids
from curation.storage import Root


def keys(*rows: tuple[int, bool]) -> Keys:
    uids = split_uids(pa.chunked_array([[f"{uid:032x}" for uid, _ in rows]]))
    return Keys(uids, np.array([has for _, has in rows], bool))


def test_of_rows_with_one_uid_the_first_with_a_picture_is_chosen(tmp_path: Path) -> None:
    shards = [keys((1, False), (2, True), (2, True), (3, False)), keys((3, False), (1, True), (2**70, True))]
    chosen = choose_rows(Root(tmp_path), shards)
    assert [mask.tolist() for mask in chosen] == [[False, True, False, True], [False, True, True]]


def test_a_shard_without_rows_has_an_empty_mask(tmp_path: Path) -> None:
    empty = Keys(np.empty((0, 2), np.uint64), np.empty(0, bool))
    assert [mask.tolist() for mask in choose_rows(Root(tmp_path), [empty, keys((1, True))])] == [[], [True]]
