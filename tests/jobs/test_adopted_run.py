"""`curate run` on adopted folders: the stages behind download do their work on pictures that lie where they were."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.manifest.manifest import Manifest
from curation.storage import Root
from tests.support.command import Command, contents
from tests.support.demo_run import files
from tests.support.img2dataset_run import write_tar
from tests.support.small_root import picture

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow
ROWS_PER_SHARD = 12
RECIPE = """
[download]
image_size = 48
[dedupe]
min_cosine = 0.999
[filters]
blur = {}
[rules]
deduplicated = "duplicate_of is null"
wide = "width >= 45"
[pack]
num_samples_per_shard = 5
"""


def write_shards(folder: Path, numbers: range) -> None:
    """As img2dataset leaves them: every sixth row failed, and the second shard begins with the first one's pictures."""
    for shard in numbers:
        rows, members = [], dict[str, bytes]()
        for i in range(ROWS_PER_SHARD):
            key, url, failed = f"{shard:05d}{i:04d}", f"http://h{i % 3}.site.test/{shard}/{i}.jpg", i % 6 == 5
            seed = i if i < 3 else shard * ROWS_PER_SHARD + i
            data = picture(seed, 40 + seed % 24, 32)
            row = {
                "key": key,
                "url": url,
                "caption": f"caption {shard} {i}",
                "status": "failed_to_download" if failed else "success",
                "error_message": "HTTP Error 404: Not Found" if failed else None,
                "original_width": None if failed else 40 + seed % 24,
                "original_height": None if failed else 32,
                "sha256": None if failed else hashlib.sha256(data).hexdigest(),
            }
            rows.append(row)
            if not failed:
                members |= {
                    f"{key}.jpg": data,
                    f"{key}.json": json.dumps(row).encode(),
                    f"{key}.txt": row["caption"].encode(),  # type: ignore[union-attr]
                }
        write_tar(folder / f"{shard:05d}.tar", members)
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")


def test_a_run_on_an_adopted_root_makes_train_shards(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, folder, root = Command(capsys), tmp_path / "laion", Root(tmp_path / "root")
    write_shards(folder, range(2))
    before = contents(folder)
    (tmp_path / "mine.toml").write_text(RECIPE)
    words = ("run", "--recipe", tmp_path / "mine.toml", "--root", root.path)
    assert command("adopt", folder, "--root", root.path) == 0, command.err

    assert command(*words) == 0, command.err
    assert "ingest and download are left out" in command.err
    assert [line.split()[0] for line in command.err.splitlines() if " done in " in line] == [
        "embed",
        "dedupe",
        "score",
        "select",
        "pack",
    ]
    assert contents(folder) == before
    assert command("verify", root.path) == 0, command.err
    reasons = dict(Manifest(root).query("select reason, count(*) from manifest group by 1").fetchall())
    assert reasons["download:http_404"] == 4 and reasons["deduplicated"] == 3
    packed = Manifest(root).query("select url from train_index order by 1").fetchall()
    assert reasons[None] == len(packed) > 5

    made = {name: path.read_bytes() for name, path in files(Path(root.path)).items()}
    assert command(*words) == 0, command.err
    assert {name: path.read_bytes() for name, path in files(Path(root.path)).items()} == made

    write_shards(folder, range(2, 3))
    assert command("adopt", folder, "--root", root.path) == 0, command.err
    assert command("status", root.path) == 0
    assert "duplicates was made from other" in command.out and "run `curate dedupe`" in command.out
    (url,) = packed[0]
    (tmp_path / "opt-out.txt").write_text(f"{url}\n")
    assert command(*words, "--set", 'download.opt_out=["opt-out.txt"]') == 0, command.err
    assert command("verify", root.path) == 0, command.err
    assert command("status", root.path) == 0
    assert "run `curate" not in command.out and "- opted_out" in command.out
    urls = {row[0] for row in Manifest(root).query("select url from train_index").fetchall()}
    assert url not in urls and any("/2/" in other for other in urls)
