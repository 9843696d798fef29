"""The rows of a packing on this machine: cut into shards as a loop over all of them cuts them, read out of core."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from curation.download.withdrawn import NO_LISTS
from curation.packing.local import Totals, cut_shards, order_rows
from curation.packing.rows import PACKED_BYTES
from curation.packing.version import find_work
from curation.recipe.config import PackConfig
from curation.recipe.select_config import SelectConfig
from curation.selection.streams import Streams, open_connection
from curation.storage import Root
from curation.workers import Workers
from tests.support.train_shards import build_packable, list_kept, pack_recipe

NUM_ROWS = 500


def make_batches(sizes: list[int], rng: random.Random) -> Iterator[pa.RecordBatch]:
    """Rows in their order, in batches of any length, empty ones too."""
    uids = [hashlib.md5(f"{k}".encode()).hexdigest() for k in range(len(sizes))]
    start = 0
    while start < len(sizes):
        stop = start + rng.choice([0, 1, 3, 40, 200])
        yield pa.record_batch({"uid": uids[start:stop], PACKED_BYTES: pa.array(sizes[start:stop], pa.int64())})
        start = stop


def cut_by_loop(rows: list[dict[str, Any]], pack: PackConfig) -> dict[int, list[str]]:
    """The oracle: uids of each shard, sorted."""
    before, found = 0, dict[int, list[str]]()
    for row in rows:
        number = before // (pack.num_bytes_per_shard or pack.num_samples_per_shard)
        found.setdefault(number, []).append(row["uid"])
        before += row[PACKED_BYTES] if pack.num_bytes_per_shard else 1
    return {number: sorted(uids) for number, uids in found.items()}


@pytest.mark.parametrize(
    "pack",
    [
        PackConfig(num_samples_per_shard=7),
        PackConfig(num_samples_per_shard=1),
        PackConfig(num_samples_per_shard=NUM_ROWS),
        PackConfig(num_bytes_per_shard=30_000),
        PackConfig(num_bytes_per_shard=4_096),
    ],
)
def test_shards_are_cut_as_a_loop_cuts_them_whatever_the_batches(pack: PackConfig) -> None:
    rng = random.Random(4)
    sizes = [rng.choice([512, 1_024, 4_096]) for _ in range(NUM_ROWS)]
    batches = list(make_batches(sizes, rng))
    expected = cut_by_loop([row for batch in batches for row in batch.to_pylist()], pack)
    shards = list(cut_shards(batches, pack))
    assert {number: table["uid"].to_pylist() for number, table in shards} == expected
    totals = Totals()
    for batch in batches:
        totals.add(pa.Table.from_batches([batch]))
    assert (totals.num_rows, totals.num_bytes, totals.max_bytes) == (NUM_ROWS, sum(sizes), 4_096)
    assert totals.count_shards(pack) - len(expected) in ((0,) if pack.num_bytes_per_shard is None else (0, 1))


def test_no_row_is_no_shard() -> None:
    assert list(cut_shards([], PackConfig())) == [] and Totals().count_shards(PackConfig()) == 0


def test_rows_come_in_the_order_of_the_md5_of_seed_and_uid(root: Root) -> None:
    made = build_packable(root)
    work = find_work(root, pack_recipe(seed=5).pack, NO_LISTS)
    assert work is not None
    limits = SelectConfig(memory_gb=0.1, threads=2)
    with open_connection(limits, root.scratch(), "pack") as connection, Workers(1) as workers:
        batches, totals = order_rows(work, Streams(connection), workers)
        first = next(batches)
        assert totals.num_rows == len(list_kept(root)), "all rows are known before the first one comes"
        rows = [row for batch in [first, *batches] for row in batch.to_pylist()]
    keys = [hashlib.md5(f"5:{row['uid']}".encode()).hexdigest() for row in rows]
    assert keys == sorted(keys) and {row["uid"] for row in rows} == list_kept(root)
    for row in rows:
        assert {k: row[k] for k in ("url", "caption", "claimed_phash")} == {
            k: made.samples[row["uid"]][k] for k in ("url", "caption", "claimed_phash")
        }
        assert row["stored_sha256"] == hashlib.sha256(made.images[row["uid"]]).hexdigest()
