"""What is broken ends as documented: counted, named and replaced, or an error after too many; never a hang."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation import schema
from curation.adopt import adopt
from curation.errors import UserError
from curation.storage import Root
from tests.support import small_root
from tests.support.trainer import roots
from trainer.data import EvalTransform, Loader, TrainTransform

NUM_ROWS = 64


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "root"
    roots.packed(Root(folder), NUM_ROWS, rows_per_shard=16, pictures=True)
    return folder


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Root:
    """64 pictures in four shards, to be damaged."""
    shutil.copytree(sound, tmp_path / "root")
    return Root(tmp_path / "root")


def _loader(root: Root, **options: Any) -> Loader:
    chosen: dict[str, Any] = {"batch_size": 8, "transform": EvalTransform(16), "tokenizer": None}
    return Loader(root, **(chosen | options))


def _rows(root: Root) -> list[dict[str, Any]]:
    (rel,) = root.current("train_index")["files"]  # type: ignore[index]
    return sorted(root.read_parquet(rel).to_pylist(), key=lambda row: (row["shard"], row["offset"]))


def _overwrite(root: Root, row: dict[str, Any], data: bytes) -> None:
    with open(root.full(row["shard"]), "r+b") as f:
        f.seek(row["offset"])
        f.write(data)


def _epoch(loader: Loader) -> list[str]:
    """The uids of one epoch; every batch is whole."""
    uids = []
    for batch in loader:
        assert batch["pixels"].shape == (8, 3, 16, 16) and len(batch["uid"]) == len(batch["tokens"]) == 8
        uids += batch["uid"]
    return uids


def test_a_truncated_shard_loses_its_tail_and_nothing_else(root: Root) -> None:
    rows = _rows(root)
    cut = rows[27]
    assert cut["shard"] == rows[16]["shard"]
    with open(root.full(cut["shard"]), "r+b") as f:
        f.truncate(cut["offset"] + 100)
    loader = _loader(root)
    seen = _epoch(loader)
    lost = {row["uid"] for row in rows[27:32]}
    assert set(loader.replaced) == lost and loader.num_replaced >= len(lost)
    assert all("truncated" in reason and cut["shard"] in reason for reason in loader.replaced.values())
    assert len(seen) == NUM_ROWS and not lost & set(seen)
    assert {row["uid"] for row in rows} - lost <= set(seen), "what is whole comes as ever"


def test_a_shard_deleted_before_or_during_training(root: Root) -> None:
    rows = _rows(root)
    gone = rows[0]["shard"]
    lost = {row["uid"] for row in rows[:16]}
    loader = _loader(root, max_failures=64)
    batches = iter(loader)
    first = next(batches)["uid"]
    Path(root.full(gone)).unlink()
    rest = [uid for batch in batches for uid in batch["uid"]]
    # The open file stays readable, so this epoch is whole; the next run names what is missing.
    assert sorted(first + rest) == sorted(row["uid"] for row in rows) and not loader.replaced
    again = _loader(root, max_failures=64)
    assert not lost & set(_epoch(again))
    assert set(again.replaced) == lost
    assert all("No such file or directory" in reason and gone in reason for reason in again.replaced.values())


def test_corrupt_pictures_are_counted_named_and_replaced_the_same_way(root: Root) -> None:
    rows = _rows(root)
    for k in (3, 20, 21, 50):
        _overwrite(root, rows[k], b"\0" * (rows[k]["size"] // 2))
    bad = {rows[k]["uid"] for k in (3, 20, 21, 50)}
    runs = []
    for options in ({}, {"num_workers": 2}):
        loader = _loader(root, transform=TrainTransform(16), **options)
        seen = _epoch(loader)
        assert set(loader.replaced) == bad and all("no whole picture" in r for r in loader.replaced.values())
        counts = Counter(seen)
        assert not bad & set(counts) and set(counts) == {row["uid"] for row in rows} - bad
        runs.append(seen)
    assert runs[0] == runs[1], "workers do not change what stands in"
    resumed = _loader(root, transform=TrainTransform(16))
    resumed.load_state_dict({**resumed.state_dict(), "samples_seen": 24})
    assert _epoch(resumed) == runs[0][24:]


def test_checksums_are_compared_when_asked(root: Root) -> None:
    row = _rows(root)[5]
    other = roots.jpeg(999, 40, 32)
    _overwrite(root, row, other[: row["size"]] if len(other) >= row["size"] else other)
    blind = _loader(root, transform=None)
    _uids = [uid for batch in blind for uid in batch["uid"]]
    assert not blind.replaced and len(_uids) == NUM_ROWS
    loader = _loader(root, transform=None, verify=True)
    seen = [uid for batch in loader for uid in batch["uid"]]
    assert row["uid"] not in seen
    assert loader.replaced == {row["uid"]: f"{row['shard']}: its sha256 is not the recorded one"}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_in_a_row_are_an_error_and_no_hang(root: Root, num_workers: int) -> None:
    for rel in {row["shard"] for row in _rows(root)}:
        Path(root.full(rel)).unlink()
    loader = _loader(root, max_failures=20, num_workers=num_workers)
    with pytest.raises(UserError, match="21 samples in a row cannot be read, the last one [0-9a-f]{32}.*curate verify"):
        _epoch(loader)


def test_one_good_sample_starts_the_count_again(root: Root) -> None:
    for row in _rows(root)[:48]:
        _overwrite(root, row, b"\0" * 20)
    loader = _loader(root, max_failures=60)
    assert len(_epoch(loader)) == NUM_ROWS
    assert loader.num_replaced > 60 and len(loader.replaced) == 48


# Shards that the loader did not pack


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


def test_adopted_shards_lie_anywhere(tmp_path: Path) -> None:
    """Absolute paths, as `curate adopt` records the tars of an img2dataset folder."""
    root = Root(tmp_path / "root")
    root.create()
    made = small_root.build(root)
    outside = tmp_path / "img2dataset"
    outside.mkdir()
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


def test_formats_besides_jpeg(tmp_path: Path) -> None:
    """PNG with a palette, WebP and grey JPEG come out of the loader as RGB."""
    root = Root(tmp_path / "root")
    root.create()
    made = small_root.build(root)
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    forms = [(picture.quantize(), "PNG"), (picture, "WEBP"), (picture.convert("L"), "JPEG"), (picture, "GIF")]
    uids = sorted(made.images)
    folder = tmp_path / "forms"
    folder.mkdir()
    for uid, (image, form) in zip(uids, forms, strict=False):
        image.save(folder / f"{uid}.bin", form)
        made.downloads[uid] |= {
            "shard": str(folder / f"{uid}.bin"),
            "offset": 0,
            "size": (folder / f"{uid}.bin").stat().st_size,
        }
    for unit in small_root.UNITS:
        small_root.write_downloads(made, unit)
    listed = ", ".join(f"'{uid}'" for uid in uids[:4])
    loader = Loader(
        root, where=f"uid in ({listed})", batch_size=4, transform=EvalTransform(32, "squash"), tokenizer=None
    )
    (batch,) = list(loader)
    assert batch["pixels"].shape == (4, 3, 32, 32) and not loader.replaced
