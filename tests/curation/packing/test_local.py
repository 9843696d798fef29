"""A packing on this machine, without its pictures: the same shards by any number of processes."""

from __future__ import annotations

from typing import Any

import pytest

from curation.download.withdrawn import NO_LISTS
from curation.packing import local
from curation.packing.local import write_shards
from curation.packing.shuffle import Shard
from curation.packing.version import find_work
from curation.recipe.select_config import SelectConfig
from curation.scratch import name_scratch
from curation.storage import Root
from tests.support.train_shards import build_packable, list_kept, pack_recipe


def list_rows(shard: Shard) -> tuple[int, list[dict[str, Any]]]:
    return shard[0], shard[1].to_pylist()


def test_shards_are_the_same_by_any_number_of_processes(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    build_packable(root)
    work = find_work(root, pack_recipe().pack, NO_LISTS)
    assert work is not None
    killed = root.scratch() / f"{name_scratch(root, 'pack')}left"
    killed.mkdir()
    alone = list(write_shards(work, SelectConfig(threads=1), list_rows))
    assert {row["uid"] for _, rows in alone for row in rows} == list_kept(root)
    monkeypatch.setattr(local, "MIN_BUCKET_ROWS", 2)
    together = list(write_shards(work, SelectConfig(threads=2), list_rows))
    assert sorted(alone) == sorted(together) and len(alone) > 1
    assert not list(root.scratch().iterdir()), "the rows on disk are deleted, also those that a kill left"


def test_files_of_the_selection_are_divided_by_their_rows() -> None:
    parts = local._divide(["a", "b", "c", "d"], [3, 9, 1, 1], 10)
    assert [part.files for part in parts] == [("a", "b"), ("c", "d")] and [part.number for part in parts] == [0, 1]
    assert local._divide([], [], 10) == []
