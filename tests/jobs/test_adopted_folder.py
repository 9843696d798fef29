"""The whole way from a folder of pictures: what was adopted is curated, read again, shown and trained on in place."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.adopt import adopt
from curation.manifest.manifest import Manifest
from curation.recipe.config import load_recipe
from curation.report import write_html
from curation.storage import Root
from curation.verify import verify
from tests.support.img2dataset_run import write_tar
from tests.support.small_root import picture
from trainer.data import Loader

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RECIPE = """
[embed]
model = "efficientnet_lite0"
[dedupe]
min_cosine = 0.9999
[filters.aspect_ratio]
[rules]
deduplicated = "duplicate_of is null"
captioned = "length(caption) > 0"
"""


def make_folder(folder: Path) -> dict[str, bytes]:
    """Thirty pictures as files, three of them copies, two in a tar and two in a parquet file; by their hash."""
    stored = []
    for number in range(30):
        path = folder / f"class {number % 3}" / f"p{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored.append(picture(number - 9 if number in (27, 28, 29) else number))
        path.write_bytes(stored[-1])
        if number % 5:
            path.with_suffix(".txt").write_text(f"caption {number}")
    write_tar(folder / "some" / "pool.tar", {f"{n}.{e}": d for n in (1, 2) for e, d in of_tar(n).items()})
    table = {"image": [picture(103), picture(104)], "caption": ["of a table", None]}
    pq.write_table(pa.table(table), folder / "table.parquet")
    stored += [picture(number) for number in (101, 102, 103, 104)]
    return {hashlib.sha256(data).hexdigest(): data for data in stored}


def of_tar(number: int) -> dict[str, bytes]:
    return {"jpg": picture(100 + number), "txt": b"of a tar"}


@pytest.mark.slow
def test_an_adopted_folder_goes_the_whole_way(spark: SparkSession, tmp_path: Path) -> None:
    from jobs import dedupe, embed, pack, score, selection

    pictures = make_folder(tmp_path / "pictures")
    root = Root(tmp_path / "root")
    adopt(root, [str(tmp_path / "pictures")])
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.toml")
    for stage in (embed, dedupe, score, selection, pack):
        stage.run(spark, recipe, root)
    assert verify(root) is None
    manifest = Manifest(root)
    reasons = dict(manifest.query("select coalesce(reason, ''), count(*) from manifest group by 1").fetchall())
    assert reasons["deduplicated"] >= 3 and reasons["captioned"] > 0 and sum(reasons.values()) == 34
    packed = manifest.query("select count(*) from train_index").fetchall()[0][0]
    assert packed == reasons[""] > 5
    write_html(root, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("data:image/jpeg") > 10
    for table, number in (("manifest", 34), ("train_index", packed)):
        loader = Loader(
            root,
            table=table,
            batch_size=number,
            transform=None,
            tokenizer=None,
            verify=True,
            index_folder=tmp_path / table,
        )
        (batch,) = list(loader)
        assert len(batch["pixels"]) == number
        assert all(bytes(data) in pictures.values() for data in batch["pixels"])
