"""Pack: shards that others read, what is refused, and what a second packing changed."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import webdataset as wds

from curation.errors import UserError
from curation.packing.rows import choose_caption
from curation.recipe.config import DownloadConfig, PackConfig, Recipe, SourceConfig
from curation.schema import TRAIN_INDEX
from curation.shards import file_sha256, index
from curation.storage import Root
from curation.verify import verify
from jobs import pack
from tests.support import s3_server, small_root
from tests.support.small_root import UNITS, VERSION, SmallRoot
from tests.support.train_shards import (
    build_packable,
    create_root,
    hash_packing,
    list_kept,
    list_tars,
    pack_recipe,
    read_index,
    select_narrower,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return build_packable(root)


def test_shards_hold_each_kept_sample_once(spark: SparkSession, made: SmallRoot) -> None:
    pack.run(spark, pack_recipe(), made.root)
    rows = read_index(made.root)
    assert sorted(row["uid"] for row in rows) == sorted(list_kept(made.root))
    assert list(rows[0])[: len(TRAIN_INDEX.names)] == TRAIN_INDEX.names
    for row in rows:
        sample = made.samples[row["uid"]]
        data = made.root.read_bytes(row["shard"], row["offset"], row["size"])
        assert data == made.images[row["uid"]] and row["sha256"] == hashlib.sha256(data).hexdigest()
        text = made.root.read_bytes(row["shard"], row["txt_offset"], row["txt_size"])
        assert text.decode() == (sample["caption"] or "")
        described = json.loads(made.root.read_bytes(row["shard"], row["json_offset"], row["json_size"]))
        assert described["uid"] == row["uid"] and described["width"] == row["width"]
        assert {name: row[name] for name in sample} == pytest.approx(sample)
    assert verify(made.root) is None


def test_shards_are_canonical_tars_with_sums(spark: SparkSession, made: SmallRoot) -> None:
    pack.run(spark, pack_recipe(), made.root)
    fp = made.root.current("train")["fingerprint"]  # type: ignore[index]
    sizes = made.root.read_json(f"train/{fp}/sizes.json")
    summary = made.root.read_json(f"train/{fp}/summary.json")
    assert sum(sizes.values()) == summary["num_samples"] == len(list_kept(made.root))
    assert summary["num_shards"] == len(sizes) == -(-len(list_kept(made.root)) // 10)
    for rel in list_tars(made.root):
        name = rel.rsplit("/", 1)[-1]
        with tarfile.open(made.root.full(rel)) as archive:
            members = archive.getmembers()
        keys = [member.name.partition(".")[0] for member in members]
        assert keys == sorted(keys) and all((m.mtime, m.uid, m.gid, m.uname) == (0, 0, 0, "") for m in members)
        assert Counter(keys) == dict.fromkeys(keys, 3) and len(set(keys)) == sizes[name]
        held = summary["shards"][name]
        assert held["sha256"] == file_sha256(made.root, rel) and held["num_bytes"] == made.root.size(rel)


def test_the_order_is_shuffled_by_the_seed(spark: SparkSession, made: SmallRoot) -> None:
    shards = []
    for seed in (0, 1):
        pack.run(spark, pack_recipe(seed=seed), made.root)
        shards.append({row["uid"]: row["shard"].rsplit("-", 1)[-1] for row in read_index(made.root)})
        by_md5 = sorted(shards[-1], key=lambda uid: hashlib.md5(f"{seed}:{uid}".encode()).hexdigest())  # noqa: B023
        assert [shards[-1][uid] for uid in by_md5] == [f"{k // 10:06d}.tar" for k in range(len(by_md5))]
    assert shards[0] != shards[1]


def test_shards_cut_by_bytes(spark: SparkSession, made: SmallRoot) -> None:
    pack.run(spark, pack_recipe(num_bytes_per_shard=40_000), made.root)
    sizes = [made.root.size(rel) for rel in list_tars(made.root)]
    largest = max(sum(512 + row[f"{p}size"] + 511 for p in ("", "txt_", "json_")) for row in read_index(made.root))
    assert len(sizes) > 3
    # Within one sample, and the zeros up to a whole record of 10,240 bytes at the end.
    assert all(40_000 - largest < size < 40_000 + largest + 1_024 + 10_240 for size in sizes[:-1])
    with pytest.raises(UserError, match="num_bytes_per_shard is 2,000, and one sample alone takes .* bytes"):
        pack.run(spark, pack_recipe(num_bytes_per_shard=2_000), made.root)


def test_nothing_is_done_twice_and_an_interrupted_run_goes_on(spark: SparkSession, made: SmallRoot) -> None:
    pack.run(spark, pack_recipe(), made.root)
    before, tars = hash_packing(made.root), list_tars(made.root)
    first, last = Path(made.root.full(tars[0])), tars[-1]
    written = first.stat().st_mtime_ns
    pack.run(spark, pack_recipe(), made.root)
    assert first.stat().st_mtime_ns == written, "the same selection is packed already"
    # As a kill leaves it: one shard without its part of the index, no current version.
    made.root.remove("train_index/current.json")
    made.root.remove(f"train_index/{before and last.split('/')[1]}/{Path(last).stem}.parquet")
    pack.run(spark, pack_recipe(), made.root)
    assert hash_packing(made.root) == before and first.stat().st_mtime_ns == written
    made.root.remove(last)
    pack.run(spark, pack_recipe(), made.root)
    assert hash_packing(made.root) == before, "a shard that somebody deleted is packed again"


def test_another_selection_is_another_version_and_says_what_changed(
    spark: SparkSession, made: SmallRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    pack.run(spark, pack_recipe(), made.root)
    old, before = made.root.current("train_index")["fingerprint"], list_kept(made.root)  # type: ignore[index]
    kept_bytes = hash_packing(made.root)
    capsys.readouterr()
    select_narrower(made)
    pack.run(spark, pack_recipe(), made.root)
    new, after = made.root.current("train_index")["fingerprint"], list_kept(made.root)  # type: ignore[index]
    assert new != old and len(after - before) == 3 and len(before - after) > 5
    said = capsys.readouterr().err
    assert f"{len(after):,} samples; 3 added, {len(before - after)} removed since {old}" in said
    assert made.root.read_json(f"logs/pack-{new}.json")["num_removed"] == len(before - after)
    # Every shard of the new version was written anew; those of the old one stand as they were.
    assert all(f"/{new}/" in rel for rel in list_tars(made.root))
    assert {k: v for k, v in hash_packing(made.root).items() if f"/{old}/" in k} == {
        k: v for k, v in kept_bytes.items() if f"/{old}/" in k
    }
    assert verify(made.root) is None


def test_a_selection_of_other_duplicates_or_opt_outs_is_not_packed(
    spark: SparkSession, made: SmallRoot, tmp_path: Path
) -> None:
    current = made.root.current("selection")
    assert current is not None
    small_root.duplicates(made, {})
    made.root.publish_current("selection", VERSION, current["files"], current["config"], {"duplicates": "0" * 12})
    with pytest.raises(UserError, match=r"selection was made from other duplicates .*: run `curate select`"):
        pack.run(spark, pack_recipe(), made.root)
    made.root.publish_current("selection", VERSION, current["files"], current["config"], {"duplicates": VERSION})
    (tmp_path / "list.txt").write_text("host1.test\n")
    listed = replace(pack_recipe(), download=DownloadConfig(opt_out=(str(tmp_path / "list.txt"),)))
    with pytest.raises(
        UserError, match="other opt-out lists or blocklists than the recipe names now: run `curate select`"
    ):
        pack.run(spark, listed, made.root)
    assert made.root.current("train") is None


def test_alternative_captions_take_the_place_of_the_original(spark: SparkSession, made: SmallRoot) -> None:
    pack.run(spark, pack_recipe(captions={"top_caption": 1.0}), made.root)
    for row in read_index(made.root):
        assert row["original_caption"] == made.samples[row["uid"]]["caption"]
        assert row["caption"] == row["top_caption"]
        assert made.root.read_bytes(row["shard"], row["txt_offset"], row["txt_size"]).decode() == (row["caption"] or "")
    assert verify(made.root) is None


def test_captions_are_drawn_by_weight(spark: SparkSession, made: SmallRoot) -> None:
    pack.run(spark, pack_recipe(captions={"caption": 1.0, "top_caption": 3.0}), made.root)
    rows = read_index(made.root)
    for row in rows:
        assert row["caption"] in {row["original_caption"], row["top_caption"]}
        assert (row["caption"] is None) == (row["original_caption"] is None and row["top_caption"] is None)
    assert {row["caption"] == row["top_caption"] for row in rows if row["top_caption"]} == {True, False}
    # The draw itself, over more uids than the root has.
    config = PackConfig(captions={"caption": 1.0, "top_caption": 3.0})
    uids = [hashlib.md5(str(k).encode()).hexdigest() for k in range(4_000)]
    drawn = [choose_caption({"uid": uid, "caption": "c", "top_caption": "t"}, config) for uid in uids]
    assert abs(np.mean([text == "t" for text in drawn]) - 0.75) < 0.03
    assert {choose_caption({"uid": u, "caption": "c", "top_caption": ""}, config) for u in uids} == {"c"}


def test_further_captions_of_the_samples_can_be_drawn(spark: SparkSession, made: SmallRoot) -> None:
    for unit in UNITS:
        table = made.root.read_parquet(f"samples/{unit}.parquet")
        further = pa.array([f"second of {uid}" for uid in table["uid"].to_pylist()])
        made.root.publish_parquet(f"samples/{unit}.parquet", table.append_column("caption_2", further))
    recipe = pack_recipe(captions={"caption": 1.0, "caption_2": 1.0})
    pack.check(recipe, made.root)
    pack.run(spark, recipe, made.root)
    rows = read_index(made.root)
    assert all(row["caption_2"] == f"second of {row['uid']}" for row in rows)
    assert {row["caption"] == row["caption_2"] for row in rows} == {True, False}
    assert verify(made.root) is None


def test_captions_that_a_source_will_have_are_known_before_it_is_ingested(root: Root) -> None:
    source = SourceConfig(name="s", paths=("x",), columns={"caption": ("a", "b")})
    pack.check(Recipe(sources=(source,), pack=PackConfig(captions={"caption_2": 1.0})), root)
    with pytest.raises(UserError, match="'caption_3', which is no column of text; those are .*caption_2"):
        pack.check(Recipe(sources=(source,), pack=PackConfig(captions={"caption_3": 1.0})), root)


def test_scores_without_units_are_no_error(made: SmallRoot) -> None:
    made.root.publish_parquet(f"scores_caption_length/{UNITS[0]}.parquet", pa.table({"uid": ["0" * 32]}))
    made.root.remove("plans")
    pack.check(Recipe(), made.root)


@pytest.mark.parametrize("captions", [{"colour": 1.0}, {"width": 1.0}])
def test_captions_from_no_column_of_text(spark: SparkSession, made: SmallRoot, captions: dict[str, float]) -> None:
    with pytest.raises(UserError, match="is no column of text; those are .*caption.*top_caption"):
        pack.run(spark, pack_recipe(captions=captions), made.root)


@pytest.mark.parametrize("captions", [{}, {"caption": 0.0}, {"caption": float("nan")}])
def test_weights_must_be_positive(captions: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive weights"):
        PackConfig(captions=captions)


def test_nothing_to_pack(spark: SparkSession, root: Root) -> None:
    made = small_root.build(root)
    with pytest.raises(UserError, match="has no selection: run `curate select` first"):
        pack.run(spark, pack_recipe(), root)
    small_root.select(made, min_aspect=1_000)
    with pytest.raises(UserError, match="keeps no row"):
        pack.run(spark, pack_recipe(), root)


def test_plain_webdataset_and_open_clips_pipeline_read_them(spark: SparkSession, made: SmallRoot) -> None:
    pack.run(spark, pack_recipe(), made.root)
    urls = [made.root.full(rel) for rel in list_tars(made.root)]
    plain = list(wds.WebDataset(urls, shardshuffle=False))
    assert sorted(s["__key__"] for s in plain) == sorted(list_kept(made.root))
    assert all(s["jpg"] == made.images[s["__key__"]] for s in plain)
    # The stages of open_clip's get_wds_dataset, in its order, without its resampling.
    stages = [
        wds.SimpleShardList(urls),
        wds.split_by_node,
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.select(lambda s: "txt" in s and ("png" in s or "jpg" in s or "jpeg" in s or "webp" in s)),
        wds.decode("pilrgb"),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=lambda image: np.asarray(image), text=lambda text: text),
        wds.to_tuple("image", "text"),
    ]
    found = list(wds.DataPipeline(*stages))
    wanted = Counter(made.samples[uid]["caption"] or "" for uid in list_kept(made.root))
    assert Counter(text for _, text in found) == wanted
    assert all(image.shape[0] == 32 and image.shape[2] == 3 for image, _ in found)
    names = [member.name for rel in list_tars(made.root) for member in index(made.root, rel)]
    assert names.count(f"{plain[0]['__key__']}.jpg") == 1


@pytest.mark.slow
def test_a_root_on_s3_is_packed_to_the_same_bytes(spark: SparkSession, made: SmallRoot) -> None:
    pack.run(spark, pack_recipe(), made.root)
    with s3_server.s3() as endpoint:
        remote = build_packable(create_root("s3://curation/run", **s3_server.options(endpoint)))
        for run in (lambda recipe, one: pack.run(spark, recipe, one), pack.run_here):
            run(pack_recipe(), remote.root)
            assert list_tars(remote.root) == list_tars(made.root)
            for rel in [*list_tars(made.root), *made.root.current("train_index")["files"]]:  # type: ignore[index]
                assert remote.root.read_bytes(rel) == made.root.read_bytes(rel)
            assert verify(remote.root) is None
            for table in ("train", "train_index"):
                remote.root.remove(table)
