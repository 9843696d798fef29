"""Which rows a query selects: by the manifest, of adopted folders, of several roots."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import schema
from curation.adopt import adopt
from curation.errors import UserError
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from tests.support import small_root
from tests.support.rot import flip_in_pages
from tests.support.trainer import roots
from tests.trainer.data.conftest import Packed
from trainer.data import Loader, selection
from trainer.data.index import META, Index
from trainer.data.selection import Query, choose_table, open_index


def test_raw_shards_by_the_manifest(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.create()
    made = small_root.build(root)
    loader = Loader(root, where="width > 40", batch_size=4, transform=None, tokenizer=None)
    wide = {uid for uid, row in made.downloads.items() if row["status"] == "ok" and row["width"] > 40}
    seen = {}
    for batch in loader:
        seen |= dict(zip(batch["uid"], zip(batch["pixels"], batch["tokens"], strict=True), strict=True))
    assert set(seen) == wide
    assert all(seen[uid] == (made.images[uid], made.samples[uid]["caption"] or "") for uid in wide)
    # Score columns and the selection may be asked too, and verify compares what was stored.
    small_root.select(made)
    kept = Loader(root, where="kept and source = 'coyo'", batch_size=4, transform=None, tokenizer=None, verify=True)
    assert {made.samples[uid]["source"] for batch in kept for uid in batch["uid"]} == {"coyo"} and not kept.replaced


@pytest.mark.parametrize("place", ["local", "store"])
@pytest.mark.parametrize(
    ("table", "rel"),
    [
        ("train_index", f"train_index/{small_root.VERSION}/part-00000.parquet"),
        ("manifest", f"samples/{small_root.UNITS[0]}.parquet"),
        ("manifest", f"downloads/{small_root.UNITS[1]}.parquet"),
    ],
)
def test_a_table_with_another_bit_is_named(tmp_path: Path, place: str, table: str, rel: str) -> None:
    root = Root(tmp_path / "root")
    root.create(sealed=True)
    small_root.finish(root)
    seal_root(root, summed_tables(root))
    flip_in_pages(Path(root.full(rel)))
    if place == "store":
        stored = Root(f"memory://{tmp_path.name}/root")
        stored.fs.put(root.path, stored.path, recursive=True)
        root = stored
    with pytest.raises(UserError, match=f"{rel} does not hold what was published: delete it and run `curate"):
        Loader(root, where="source = 'coyo'", table=table, batch_size=4, transform=None, tokenizer=None)


@pytest.mark.parametrize(("captions", "verify"), [((), False), ((), True), (("caption",), False)])
def test_torn_and_foreign_files_of_an_index_are_made_again(
    packed: Packed, tmp_path: Path, captions: tuple[str, ...], verify: bool
) -> None:
    query = Query(roots={"r": packed.root}, captions=captions, verify=verify)
    folder = open_index(query, tmp_path).folder
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, content in whole.items():
        for torn in (b"", content[:-1], content + b"x", b"[1]", b'{"num_rows": "many"}', None):
            if name != META and torn in (content, b"[1]"):
                continue
            (folder / name).unlink()
            if torn is not None:
                (folder / name).write_bytes(torn)
            open_index(query, tmp_path)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole, (name, torn)


def test_an_index_over_raw_shards_sees_a_later_round(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.create()
    made = small_root.build(root)
    first = open_index(Query(roots={"r": root}), tmp_path / "cache")
    lost = next(uid for uid, row in made.downloads.items() if row["status"] == "timeout")
    came = next(row for uid, row in made.downloads.items() if made.units[uid] == made.units[lost] and row["shard"])
    made.downloads[lost] = came | {"uid": lost, "fetch_round": 1}
    small_root.write_downloads(made, made.units[lost])
    second = open_index(Query(roots={"r": root}), tmp_path / "cache")
    assert len(second) == len(first) + 1


def test_a_root_of_mixed_versions_is_refused_with_the_command_to_run(packed: Packed, tmp_path: Path) -> None:
    shutil.copytree(packed.root.path, tmp_path / "root")
    root = Root(tmp_path / "root")
    current = root.current("train_index")
    assert current is not None
    root.publish_current("train_index", current["fingerprint"], current["files"], {}, {"selection": "0" * 12})
    root.publish_current("selection", "1" * 12, [], {}, {})
    with pytest.raises(UserError, match=r"train_index was made from other selection .*: run `curate pack`"):
        open_index(Query(roots={"r": root}), tmp_path / "cache")
    assert choose_table(root, "manifest") == "manifest"


def test_adopted_shards_lie_anywhere(tmp_path: Path) -> None:
    """Absolute paths, as `curate adopt` records the tars of an img2dataset folder."""
    root = Root(tmp_path / "root")
    root.create()
    made = small_root.build(root)
    outside = tmp_path / "img2dataset"
    outside.mkdir()
    inputs = [{"path": f"{outside}/00000.tar"}]
    root.publish_json("plans/ffffffff.json", {"number": 1, "adopted": True, "inputs": inputs})
    for unit in small_root.UNITS:
        table = root.read_parquet(f"downloads/{unit}.parquet").to_pylist()
        for row in table:
            if row["shard"]:
                target = outside / f"{unit[-5:]}.tar"
                if not target.exists():
                    shutil.move(root.full(row["shard"]), target)
                row["shard"] = str(target)
        root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(table, schema.DOWNLOADS))
    loader = Loader(root, batch_size=5, transform=None, tokenizer=None, num_workers=1)
    seen = {}
    for batch in loader:
        seen |= dict(zip(batch["uid"], batch["pixels"], strict=True))
    assert seen == made.images and not loader.replaced


def test_an_adopted_img2dataset_folder(tmp_path: Path) -> None:
    """Two of its shards, the second on another disk: trained on where they lie, by conditions on its columns."""
    pictures: dict[str, bytes] = {}
    for number in range(2):
        rows, members = [], {}
        for k in range(6):
            key, url, caption = f"{number:05d}{k:04d}", f"http://x.test/{number}{k}.jpg", f"picture {number}{k}"
            data = roots.jpeg(10 * number + k, 48 + k, 40)
            lost = k == 4
            row = {"url": url, "caption": caption, "key": key, "status": "success", "error_message": None}
            row |= {
                "width": 48 + k,
                "height": 40,
                "original_width": 48 + k,
                "original_height": 40,
                "similarity": k / 10,
            }
            rows.append(row | ({"status": "failed_to_download", "error_message": "HTTP Error 404"} if lost else {}))
            if not lost:
                members |= {f"{key}.jpg": data, f"{key}.json": json.dumps(row).encode(), f"{key}.txt": caption.encode()}
                pictures[caption] = data
        folder = tmp_path / f"laion-{number}"
        folder.mkdir()
        (folder / f"{number:05d}.tar").write_bytes(small_root.tar(members)[0])
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{number:05d}.parquet")
        stats = {"count": 6, "successes": 5, "failed_to_download": 1, "failed_to_resize": 0}
        (folder / f"{number:05d}_stats.json").write_text(json.dumps(stats))
    root = Root(tmp_path / "root")
    adopt(root, [str(tmp_path / "laion-0"), str(tmp_path / "laion-1")])
    loader = Loader(root, batch_size=4, transform=None, tokenizer=None, last="drop", verify=True)
    seen: dict[str, bytes] = {}
    for batch in [*loader, *loader, *loader]:
        seen |= dict(zip(batch["tokens"], batch["pixels"], strict=True))
    assert seen == pictures and not loader.replaced
    some = Loader(root, where="clip_similarity > 0.25", batch_size=6, transform=None, tokenizer=None)
    (only,) = list(some)
    assert sorted(set(only["tokens"])) == sorted(c for c in pictures if c[-1] in "35")


def test_several_roots_at_once_and_mixed(packed: Packed, tmp_path: Path) -> None:
    other = Root(tmp_path / "other")
    theirs = roots.packed(other, 30, seed=1)
    loader = Loader([packed.root, other], batch_size=7, transform=None, tokenizer=None, index_folder=packed.cache)
    assert sorted(_uids(loader)) == sorted(packed.uids + theirs)
    named = {"big": packed.root, "small": other}
    options: dict[str, Any] = {"batch_size": 10, "transform": None, "tokenizer": None, "index_folder": packed.cache}
    mixed = Loader(named, mix={"big": 1, "small": 1}, epoch_samples=200, **options)
    for batch in mixed:
        assert sum(uid in set(theirs) for uid in batch["uid"]) in (4, 5, 6)
    # The same root twice holds no sample twice.
    assert sorted(_uids(Loader([packed.root, packed.root], **options))) == packed.uids


def _uids(loader: Loader) -> list[str]:
    """One epoch without padding."""
    return [uid for batch in loader for uid in batch["uid"][: len(batch["uid"]) - batch["padding"]]]


def _open(packed: Packed, folder: Path, **options: Any) -> Index:
    return open_index(Query(roots={"root": packed.root}, **options), folder)


def test_an_index_is_built_once_and_found_again(packed: Packed, tmp_path: Path) -> None:
    first = _open(packed, tmp_path, where="score < 50")
    built = (first.folder / "size.bin").stat().st_ino
    again = _open(packed, tmp_path, where="score < 50")
    assert again.folder == first.folder and (again.folder / "size.bin").stat().st_ino == built
    (first.folder / META).unlink()  # as after a build that was killed
    rebuilt = _open(packed, tmp_path, where="score < 50")
    assert rebuilt.folder == first.folder and len(rebuilt) == 50


def test_a_file_that_the_condition_names_counts_with_its_content(packed: Packed, tmp_path: Path) -> None:
    listed = tmp_path / "uids.csv"
    where = f"uid in (select uid from read_csv('{listed}', header = true))"
    for count in (3, 5):
        listed.write_text("uid\n" + "\n".join(packed.uids[:count]) + "\n")
        assert len(_open(packed, tmp_path, where=where)) == count


def test_the_indexes_unused_for_longest_are_deleted(packed: Packed, tmp_path: Path) -> None:
    folders = []
    for number in range(selection.KEPT_INDEXES + 2):
        folders.append(_open(packed, tmp_path, where=f"score <= {number}").folder)
        age = (number + 1) * 1_000_000_000
        os.utime(folders[-1] / META, ns=(age, age))
    _open(packed, tmp_path, where="score <= 0")
    kept = [folder.exists() for folder in folders]
    assert kept == [True, False, False] + [True] * (selection.KEPT_INDEXES - 1)


def test_rows_lie_in_the_order_of_shard_and_offset_whatever_the_table_says(packed: Packed, tmp_path: Path) -> None:
    index = _open(packed, tmp_path, groups=("coyo", "laion"))
    assert [name for name, _, _ in index.meta.groups] == ["coyo", "laion"]
    for name, start, stop in index.meta.groups:
        places = list(zip(index.shard[start:stop].tolist(), index.offset[start:stop].tolist(), strict=True))
        assert places == sorted(places) and places
        numbers = [packed.uids.index(uid) for uid in index.uids(np.arange(start, stop))]
        assert {roots.SOURCES[(k % 6 > 2) + (k % 6 > 4)] for k in numbers} == {name}
