"""Scores: one table a filter, rows only for pictures that came, each unit once."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

import filters
from curation.errors import UserError
from curation.recipe.config import Recipe, SourceConfig
from curation.storage import Root
from filters.base import READABLE
from jobs import score
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FILTERS: dict[str, dict[str, object]] = {"aspect_ratio": {}, "language": {}, "blur": {}, "entropy": {"max_side": 64}}


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


def _ok(made: SmallRoot, unit: str) -> list[str]:
    return sorted(u for u, row in made.downloads.items() if row["status"] == "ok" and made.units[u] == unit)


def test_scores_equal_each_filter_on_each_row_alone(spark: SparkSession, made: SmallRoot) -> None:
    score.run(spark, Recipe(filters=FILTERS), made.root)
    for unit in UNITS:
        for name, options in FILTERS.items():
            item = filters.build(name, options)
            table = made.root.read_parquet(f"scores_{name}/{unit}.parquet")
            assert table["uid"].to_pylist() == _ok(made, unit)
            for row in table.to_pylist():
                uid = row.pop("uid")
                known = made.samples[uid] | made.downloads[uid] | {"image": made.images[uid]}
                fields = [READABLE[column] for column in item.reads]
                alone = pa.RecordBatch.from_pylist([{f.name: known[f.name] for f in fields}], pa.schema(fields))
                assert item.apply(alone).to_pylist() == [row]


def test_only_what_is_missing_is_computed(spark: SparkSession, made: SmallRoot) -> None:
    recipe = Recipe(filters={"aspect_ratio": {}})
    score.run(spark, recipe, made.root)
    first = Path(made.root.full(f"scores_aspect_ratio/{UNITS[0]}.parquet"))
    other = Path(made.root.full(f"scores_aspect_ratio/{UNITS[1]}.parquet"))
    data, stamp = other.read_bytes(), first.stat().st_mtime_ns
    other.unlink()
    score.run(spark, Recipe(filters={"aspect_ratio": {}, "entropy": {}}), made.root)
    assert other.read_bytes() == data and first.stat().st_mtime_ns == stamp
    assert made.root.units("scores_entropy") == list(UNITS)


def test_a_task_that_begins_again_scores_what_its_first_attempt_had_not(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {name: filters.build(name, {}) for name in ("aspect_ratio", "caption_length")}
    first = Path(made.root.full(f"scores_aspect_ratio/{UNITS[0]}.parquet"))
    score.score_missing(made.root, UNITS[0], {"aspect_ratio": wanted["aspect_ratio"]})
    stamp = first.stat().st_mtime_ns
    monkeypatch.setattr(score, "is_repeated", lambda: True)
    score.score_missing(made.root, UNITS[0], wanted)
    assert first.stat().st_mtime_ns == stamp and made.root.units("scores_caption_length") == [UNITS[0]]
    score.score_missing(made.root, UNITS[0], wanted)
    monkeypatch.setattr(score, "is_repeated", lambda: False)
    score.score_missing(made.root, UNITS[0], wanted)  # what a stage makes anew stands already at times
    assert first.stat().st_mtime_ns != stamp


@dataclass(frozen=True, kw_only=True)
class CountCaptions(filters.Filter):
    """A filter of somebody's own, which reads a further caption."""

    reads = ("caption", "caption_2")
    writes = pa.schema([("num_captions", pa.int32())])

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        known = (batch[name].is_valid().to_numpy(zero_copy_only=False) for name in self.reads)
        return self.result(pa.array(sum(one.astype(int) for one in known)))


def test_a_filter_reads_a_further_caption_which_is_null_where_a_batch_has_none(made: SmallRoot) -> None:
    table = made.root.read_parquet(f"samples/{UNITS[0]}.parquet")
    second = pa.array(["second"] * len(table))
    made.root.publish_parquet(f"samples/{UNITS[0]}.parquet", table.append_column("caption_2", second))
    for number, unit in enumerate(UNITS):
        score.score_unit(made.root, unit, {"count": CountCaptions()})
        found = made.root.read_parquet(f"scores_count/{unit}.parquet").to_pylist()
        known = {row["uid"]: (made.samples[row["uid"]]["caption"] is not None) + (number == 0) for row in found}
        assert {row["uid"]: row["num_captions"] for row in found} == known and found


def test_a_filter_that_reads_a_caption_which_nothing_has_is_refused(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "build", lambda *_: CountCaptions())
    with pytest.raises(UserError, match="Filter count reads caption_2, and samples have caption alone"):
        score.check(Recipe(filters={"count": {}}), made.root)
    source = SourceConfig(name="s", paths=("x",), columns={"caption": ("a", "b")})
    score.check(Recipe(filters={"count": {}}, sources=(source,)), made.root)


def test_changed_options_of_a_scored_filter_are_refused(spark: SparkSession, made: SmallRoot) -> None:
    score.run(spark, Recipe(filters={"entropy": {}}), made.root)
    with pytest.raises(UserError, match="scores_entropy was made with other settings"):
        score.run(spark, Recipe(filters={"entropy": {"max_side": 32}}), made.root)


def test_an_embedding_reaches_the_row_it_belongs_to(spark: SparkSession, made: SmallRoot, tmp_path: Path) -> None:
    head = tmp_path / "head.npz"
    np.savez(head, weight=np.array([[1.0, 0.0]]), bias=np.array([2.0]))
    angles: dict[str, float] = {}
    for unit in UNITS:
        uids = _ok(made, unit)[1:][::-1]  # one picture has none, and the order is not that of the other tables
        angles |= {uid: float(i) / 10 for i, uid in enumerate(uids)}
        matrix = io.BytesIO()
        np.save(matrix, np.array([[3 * np.cos(angles[u]), 3 * np.sin(angles[u])] for u in uids], np.float16))
        made.root.publish(f"embeddings/img_emb/img_emb_{unit}.npy", matrix.getvalue())
        made.root.publish_parquet(f"embeddings/metadata/metadata_{unit}.parquet", pa.table({"uid": uids}))
    score.run(spark, Recipe(filters={"aesthetic_head": {"head": str(head)}}), made.root)
    rows = [r for u in UNITS for r in made.root.read_parquet(f"scores_aesthetic_head/{u}.parquet").to_pylist()]
    found = {row["uid"]: row["aesthetic_head"] for row in rows}
    assert {uid for uid, value in found.items() if value is None} == {_ok(made, unit)[0] for unit in UNITS}
    for uid, angle in angles.items():
        assert found[uid] == pytest.approx(2 + np.cos(angle), abs=2e-3)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"aspect_ration": {}}, "did you mean aspect_ratio"),
        ({"blur": {"max_sid": 3}}, "did you mean max_side"),
        ({"blur": {"max_side": 1}}, "max_side must be at least 3"),
        ({"aesthetic_head": {"head": "missing.pth"}}, "run `curate embed` first"),
        ({"concept_match": {"entries": "missing.txt"}}, "cannot be read"),
        ({"concept_match": {"entries": "/dev/null"}}, "is empty"),
        ({"opennsfw": {"model": __file__}}, "is no ONNX model|pip install onnxruntime"),
    ],
)
def test_bad_filters_are_refused_before_anything_is_written(
    spark: SparkSession, made: SmallRoot, chosen: dict[str, dict[str, object]], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        score.run(spark, Recipe(filters={"aspect_ratio": {}} | chosen), made.root)
    assert not made.root.exists("scores_aspect_ratio")


def test_without_downloads_it_says_what_to_run(spark: SparkSession, root: Root) -> None:
    with pytest.raises(UserError, match="curate download"):
        score.run(spark, Recipe(filters={"entropy": {}}), root)


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
    (batch,) = score.read_batches(made.root, UNITS[0], {"image"})
    found = dict(zip(batch["uid"].to_pylist(), batch["image"].to_pylist(), strict=True))
    assert found == {uid: made.images[uid] for uid in uids}
    score.score_unit(made.root, UNITS[0], {"entropy": filters.build("entropy", {})})
    assert made.root.read_parquet(f"scores_entropy/{UNITS[0]}.parquet")["uid"].to_pylist() == uids


def test_pictures_are_read_once_a_batch_and_shard(made: SmallRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    original = Root.read_bytes

    def counted(self: Root, rel: str, offset: int = 0, size: int | None = None) -> bytes:
        reads.append(rel)
        return original(self, rel, offset, size)

    monkeypatch.setattr(Root, "read_bytes", counted)
    batches = list(score.read_batches(made.root, UNITS[0], {"image"}))
    assert len([rel for rel in reads if rel.startswith("raw/")]) == len(batches) == 1
    images = dict(zip(batches[0]["uid"].to_pylist(), batches[0]["image"].to_pylist(), strict=True))
    assert images == {uid: made.images[uid] for uid in _ok(made, UNITS[0])}


def test_a_unit_whose_pictures_were_all_lost_has_empty_scores(spark: SparkSession, made: SmallRoot) -> None:
    for uid, row in made.downloads.items():
        if made.units[uid] == UNITS[0]:
            made.downloads[uid] = dict.fromkeys(row) | {"uid": uid, "status": "dns"}
    small_root.write_downloads(made, UNITS[0])
    score.run(spark, Recipe(filters=FILTERS), made.root)
    for name, options in FILTERS.items():
        empty = made.root.read_parquet(f"scores_{name}/{UNITS[0]}.parquet")
        full = made.root.read_parquet(f"scores_{name}/{UNITS[1]}.parquet")
        assert empty.num_rows == 0 < full.num_rows and empty.schema == full.schema
        assert empty.column_names == ["uid", *filters.build(name, options).writes.names]
