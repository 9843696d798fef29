"""The shuffle on this machine: shards are those of one loop over all rows."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation.download.withdrawn import NO_LISTS
from curation.packing.rows import PACKED_BYTES
from curation.packing.shuffle import Buckets, Part, Shuffle, cut_bucket, sort_keys, sort_slices, spread_rows
from curation.packing.version import Work, find_work
from curation.recipe.config import PackConfig
from curation.recipe.select_config import SelectConfig
from curation.storage import Root
from tests.support.small_root import SmallRoot
from tests.support.train_shards import build_packable, list_kept

SEED = 5
LIMITS = SelectConfig(memory_gb=0.1, threads=1)


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return build_packable(root)


def plan_work(root: Root, pack: PackConfig) -> Work:
    work = find_work(root, replace(pack, seed=SEED), NO_LISTS)
    assert work is not None
    return work


def shuffle_rows(work: Work, folder: Path, num_buckets: int) -> tuple[Buckets, dict[int, pa.Table]]:
    """What the buckets hold, and the shards; each unit has a file of its own."""
    parts = [Part(number, (file,)) for number, file in enumerate(work.selection_files)]
    shuffle = Shuffle(version=work.version, folder=folder, num_parts=len(parts), num_buckets=num_buckets, limits=LIMITS)
    buckets = sum((spread_rows(shuffle, part) for part in parts), Buckets.empty(num_buckets))
    shards = [shard for task in buckets.list_tasks(shuffle.shard_size) for shard in cut_bucket(shuffle, task)]
    assert len(dict(shards)) == len(shards), "no shard is written twice"
    return buckets, dict(shards)


def find_key(uid: str) -> str:
    return hashlib.md5(f"{SEED}:{uid}".encode()).hexdigest()


def cut_by_loop(rows: list[dict[str, Any]], pack: PackConfig) -> dict[int, list[str]]:
    """The oracle: uids of each shard, sorted."""
    before, found = 0, dict[int, list[str]]()
    for row in sorted(rows, key=lambda row: find_key(row["uid"])):
        found.setdefault(before // (pack.num_bytes_per_shard or pack.num_samples_per_shard), []).append(row["uid"])
        before += row[PACKED_BYTES] if pack.num_bytes_per_shard else 1
    return {number: sorted(uids) for number, uids in found.items()}


@pytest.mark.parametrize("num_buckets", [1, 4, 200])
@pytest.mark.parametrize(
    "pack",
    [
        PackConfig(num_samples_per_shard=7),
        PackConfig(num_samples_per_shard=1),
        PackConfig(num_samples_per_shard=1_000),
        PackConfig(num_bytes_per_shard=30_000),
        PackConfig(num_bytes_per_shard=8_192),
    ],
)
def test_shards_are_cut_as_a_loop_cuts_them(
    made: SmallRoot, tmp_path: Path, pack: PackConfig, num_buckets: int
) -> None:
    buckets, shards = shuffle_rows(plan_work(made.root, pack), tmp_path, num_buckets)
    rows = [row for table in shards.values() for row in table.to_pylist()]
    assert {row["uid"] for row in rows} == list_kept(made.root) and len(rows) == buckets.num_rows.sum()
    assert {number: table["uid"].to_pylist() for number, table in shards.items()} == cut_by_loop(rows, pack)
    sizes = [row[PACKED_BYTES] for row in rows] if pack.num_bytes_per_shard else [1] * len(rows)
    assert (buckets.sizes.sum(), buckets.max_size) == (sum(sizes), max(sizes))
    num_more = buckets.count_shards(pack.num_bytes_per_shard or pack.num_samples_per_shard) - len(shards)
    assert num_more in ((0,) if pack.num_bytes_per_shard is None else (0, 1))


def test_each_row_has_its_own_values(made: SmallRoot, tmp_path: Path) -> None:
    _, shards = shuffle_rows(plan_work(made.root, PackConfig(num_samples_per_shard=7)), tmp_path, 4)
    for row in (row for table in shards.values() for row in table.to_pylist()):
        uid = row["uid"]
        names = ("url", "caption", "claimed_phash")
        assert {name: row[name] for name in names} == {name: made.samples[uid][name] for name in names}
        assert row["stored_sha256"] == hashlib.sha256(made.images[uid]).hexdigest()
        assert row["top_caption"] in (f"better words {uid[:4]}", None)
    texts = [text for table in shards.values() for text in table["top_caption"].to_pylist()]
    assert 0 < texts.count(None) < len(texts)


def test_columns_without_values_keep_their_types(made: SmallRoot, tmp_path: Path) -> None:
    work = plan_work(made.root, PackConfig(num_samples_per_shard=7))
    _, shards = shuffle_rows(work, tmp_path, 4)
    wanted = work.version.rows.append(pa.field(PACKED_BYTES, pa.int64()))
    assert all(table.schema == wanted for table in shards.values())
    found = pa.concat_tables(shards.values())
    assert any(found[name].null_count == len(found) for name in ("num_faces", "license")), "the root has such a column"


def test_a_bucket_knows_its_last_row_whichever_file_has_it(made: SmallRoot, tmp_path: Path) -> None:
    pack = PackConfig(num_bytes_per_shard=30_000)
    buckets, shards = shuffle_rows(plan_work(made.root, pack), tmp_path, 4)
    rows = {find_key(row["uid"]): row for table in shards.values() for row in table.to_pylist()}
    for number in range(4):
        mine = [key for key in rows if int(key[:8], 16) * 4 >> 32 == number]
        high, low = buckets.last_keys[number].tolist()
        assert f"{high:016x}{low:016x}" == max(mine) and buckets.num_rows[number] == len(mine)
        assert buckets.last_sizes[number] == rows[max(mine)][PACKED_BYTES]


def test_no_row_is_no_task() -> None:
    assert Buckets.empty(4).list_tasks(10) == [] and Buckets.empty(4).count_shards(10) == 0


def test_keys_of_the_same_high_half_are_sorted_by_the_low_one() -> None:
    high, low = np.array([7, 3, 7, 3, 9], np.uint64), np.array([1, 8, 0, 2, 5], np.uint64)
    assert sort_keys(high, low).tolist() == [3, 1, 2, 0, 4]
    assert sort_keys(np.array([7, 3, 9], np.uint64), low[:3]).tolist() == [1, 0, 2]


def test_slices_are_sorted_by_uid_also_where_uids_begin_alike() -> None:
    uids = pa.chunked_array([["0" * 8 + "b" * 24, "f" * 32, "0" * 8 + "a" * 24], ["8" * 32, "7" * 32]])
    order = np.array([4, 0, 1, 2, 3])
    assert sort_slices(uids, order, [slice(1, 4), slice(4, 5)]).tolist() == [2, 0, 1, 3]
    assert sort_slices(uids, order, [slice(0, 2), slice(2, 5)]).tolist() == [0, 4, 2, 3, 1]
