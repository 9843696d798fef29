"""The scores of one unit: rows reach their filters with pictures and captions, whatever the order of shards."""

from __future__ import annotations

import pyarrow as pa
import pytest

import filters
from curation.storage import Root
from jobs.scoring import unit_scores
from tests.support import small_root
from tests.support.own_filters import CountCaptions
from tests.support.small_root import UNITS, SmallRoot


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


def _ok(made: SmallRoot, unit: str) -> list[str]:
    return sorted(u for u, row in made.downloads.items() if row["status"] == "ok" and made.units[u] == unit)


def test_a_filter_reads_a_further_caption_which_is_null_where_a_batch_has_none(made: SmallRoot) -> None:
    table = made.root.read_parquet(f"samples/{UNITS[0]}.parquet")
    second = pa.array(["second"] * len(table))
    made.root.publish_parquet(f"samples/{UNITS[0]}.parquet", table.append_column("caption_2", second))
    for number, unit in enumerate(UNITS):
        unit_scores.score_unit(made.root, unit, {"count": CountCaptions()})
        found = made.root.read_parquet(f"scores_count/{unit}.parquet").to_pylist()
        known = {row["uid"]: (made.samples[row["uid"]]["caption"] is not None) + (number == 0) for row in found}
        assert {row["uid"]: row["num_captions"] for row in found} == known and found


def test_pictures_of_any_order_reach_their_rows(made: SmallRoot) -> None:
    """In shards of an adopted folder neither names nor places follow the uids."""
    uids = _ok(made, UNITS[0])
    shards: dict[str, tuple[str, int]] = {}
    for name, members in (("a", uids[::-2]), ("b", uids[-2::-2])):
        data, places = small_root.tar({f"{i:05d}.jpg": made.images[uid] for i, uid in enumerate(members)})
        made.root.publish(f"adopted/{name}.tar", data)
        shards |= {uid: (f"adopted/{name}.tar", places[f"{i:05d}.jpg"][0]) for i, uid in enumerate(members)}
    for uid, (shard, offset) in shards.items():
        made.downloads[uid] |= {"shard": shard, "offset": offset}
    small_root.write_downloads(made, UNITS[0])
    (batch,) = unit_scores.read_batches(made.root, UNITS[0], {"image"})
    found = dict(zip(batch["uid"].to_pylist(), batch["image"].to_pylist(), strict=True))
    assert found == {uid: made.images[uid] for uid in uids}
    unit_scores.score_unit(made.root, UNITS[0], {"entropy": filters.build("entropy", {})})
    assert made.root.read_parquet(f"scores_entropy/{UNITS[0]}.parquet")["uid"].to_pylist() == uids


def test_pictures_are_read_once_a_batch_and_shard(made: SmallRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    original = Root.read_bytes

    def counted(self: Root, rel: str, offset: int = 0, size: int | None = None) -> bytes:
        reads.append(rel)
        return original(self, rel, offset, size)

    monkeypatch.setattr(Root, "read_bytes", counted)
    batches = list(unit_scores.read_batches(made.root, UNITS[0], {"image"}))
    assert len([rel for rel in reads if rel.startswith("raw/")]) == len(batches) == 1
    images = dict(zip(batches[0]["uid"].to_pylist(), batches[0]["image"].to_pylist(), strict=True))
    assert images == {uid: made.images[uid] for uid in _ok(made, UNITS[0])}


def test_rows_of_samples_reach_downloads_that_lie_in_another_order_or_lack_some(made: SmallRoot) -> None:
    wanted = {name: filters.build(name, {}) for name in ("caption_length", "clip_score", "aspect_ratio")}
    unit_scores.score_unit(made.root, UNITS[0], wanted)
    expected = {name: made.root.read_bytes(f"scores_{name}/{UNITS[0]}.parquet") for name in wanted}
    samples = made.root.read_parquet(f"samples/{UNITS[0]}.parquet")
    downloads = made.root.read_parquet(f"downloads/{UNITS[0]}.parquet")
    for backward in (samples, downloads):
        name = "samples" if backward is samples else "downloads"
        made.root.publish_parquet(f"{name}/{UNITS[0]}.parquet", backward[::-1])
        unit_scores.score_unit(made.root, UNITS[0], wanted)
        assert {name: made.root.read_bytes(f"scores_{name}/{UNITS[0]}.parquet") for name in wanted} == expected
    lost = _ok(made, UNITS[0])[0]
    without = pa.Table.from_pylist([row for row in samples.to_pylist() if row["uid"] != lost], samples.schema)
    made.root.publish_parquet(f"samples/{UNITS[0]}.parquet", without)
    unit_scores.score_unit(made.root, UNITS[0], wanted)
    for name in ("caption_length", "clip_score"):
        rows = made.root.read_parquet(f"scores_{name}/{UNITS[0]}.parquet").to_pylist()
        assert [row["uid"] for row in rows] == _ok(made, UNITS[0]) and set(rows[0].values()) == {lost, None}


def test_pages_end_where_the_rows_say_and_not_where_batches_do(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = [f"{number:032x}" for number in range(40_000)]
    made.root.publish_parquet(f"samples/{UNITS[0]}.parquet", pa.table({"uid": uids, "caption": uids}))
    status = ["ok" if number % 3 else "dns" for number in range(len(uids))]
    made.root.publish_parquet(f"downloads/{UNITS[0]}.parquet", pa.table({"uid": uids, "status": status}))
    found = set()
    for size in (16_384, 1_000):
        monkeypatch.setitem(unit_scores.ROWS_PER_BATCH, False, size)
        unit_scores.score_unit(made.root, UNITS[0], {"caption_length": filters.build("caption_length", {})})
        found.add(made.root.read_bytes(f"scores_caption_length/{UNITS[0]}.parquet"))
    assert len(found) == 1
