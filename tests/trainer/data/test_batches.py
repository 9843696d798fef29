"""Batches: replacements are counted, named and repeated, or an error after too many; never a hang."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.errors import UserError
from curation.storage import Root
from tests.support import small_root
from tests.support.trainer.damaged import NUM_ROWS, index_rows, open_loader, overwrite, read_epoch
from trainer.data import EvalTransform, Loader, TrainTransform


def test_corrupt_pictures_are_counted_named_and_replaced_the_same_way(root: Root) -> None:
    rows = index_rows(root)
    for k in (3, 20, 21, 50):
        overwrite(root, rows[k], b"\0" * (rows[k]["size"] // 2))
    bad = {rows[k]["uid"] for k in (3, 20, 21, 50)}
    runs = []
    for options in ({}, {"num_workers": 2}):
        loader = open_loader(root, transform=TrainTransform(16), **options)
        seen = read_epoch(loader)
        assert set(loader.replaced) == bad and all("no whole picture" in r for r in loader.replaced.values())
        counts = Counter(seen)
        assert not bad & set(counts) and set(counts) == {row["uid"] for row in rows} - bad
        runs.append(seen)
    assert runs[0] == runs[1], "workers do not change what stands in"
    resumed = open_loader(root, transform=TrainTransform(16))
    resumed.load_state_dict({**resumed.state_dict(), "samples_seen": 24})
    assert read_epoch(resumed) == runs[0][24:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_in_a_row_are_an_error_and_no_hang(root: Root, num_workers: int) -> None:
    for rel in {row["shard"] for row in index_rows(root)}:
        Path(root.full(rel)).unlink()
    loader = open_loader(root, max_failures=20, num_workers=num_workers)
    with pytest.raises(UserError, match="21 samples in a row cannot be read, the last one [0-9a-f]{32}.*curate verify"):
        read_epoch(loader)


def test_one_good_sample_starts_the_count_again(root: Root) -> None:
    for row in index_rows(root)[:48]:
        overwrite(root, row, b"\0" * 20)
    loader = open_loader(root, max_failures=60)
    assert len(read_epoch(loader)) == NUM_ROWS
    assert loader.num_replaced > 60 and len(loader.replaced) == 48


# Shards that the loader did not pack


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
    inputs = [{"path": f"{folder}/00000.tar"}]
    root.publish_json("plans/ffffffff.json", {"number": 1, "adopted": True, "inputs": inputs})
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
