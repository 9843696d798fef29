"""The root of `benchmarks.units`: every stage has ended on it, so that each finds nothing to do when it is resumed.

No picture came, so tables are full of rows and there is nothing to fetch, embed or score. Versions of duplicates and of
train shards, which need pictures, are entered by the stages' own functions as what they would have made of no pictures.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import schema
from curation.download.withdrawn import resolve_lists
from curation.metadata.inputs import find_inputs
from curation.metadata.known import describe_input
from curation.packing.version import find_work, publish_version
from curation.recipe.config import Recipe, load_recipe
from curation.settings import content_settings
from curation.shards import file_sha256
from curation.storage import Root, parquet_bytes
from curation.sums.cover import summed_tables
from curation.sums.ledger import Sum, sum_bytes
from curation.sums.recorder import sealing
from curation.sums.seal import seal_tables
from curation.tables import (
    DUPLICATES,
    metadata_file,
    metadata_folder,
    samples_file,
    scores_table,
    unit_file,
    vectors_file,
)
from jobs.duplicates.plan import plan_dedupe
from jobs.embedders import identify_model, resolve_model
from jobs.scoring.score_columns import build_filters

BATCH = "0badcafe"
DIM = 8
_RECIPE = """
[[sources]]
name = "laion"
format = "laion2b"
paths = ["meta.parquet"]
[download]
contact = "https://example.org/crawler"
[embed]
model = "model"
[filters]
caption_length = {}
[dedupe]
min_cosine = 0.9
[rules]
words = "caption_words >= 3"
"""
LOCAL_THREADS, REMOTE_THREADS = 1, 16


def write_recipe(folder: Path, rule: str = "true") -> Recipe:
    """The recipe of all stages, its metadata and its model in `folder`; another `rule` is another selection."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"URL": ["http://h.test/0.jpg"], "TEXT": ["a picture"], "WIDTH": [9], "HEIGHT": [9], "similarity": [0.3]}
    if not (folder / "meta.parquet").exists():
        pq.write_table(pa.table(columns), folder / "meta.parquet")
    _write_model(folder / "model")
    (folder / "recipe.toml").write_text(f'{_RECIPE}new = "{rule}"\n')
    return load_recipe(folder / "recipe.toml")


def _write_model(folder: Path) -> None:
    """Vectors of others in clip-retrieval's layout, which stand for a model."""
    if not folder.exists():
        (folder / "metadata").mkdir(parents=True)
        (folder / "img_emb").mkdir()
        pq.write_table(pa.table({"url": ["u"], "caption": ["c"]}), folder / "metadata" / "metadata_0.parquet")
        np.save(folder / "img_emb" / "img_emb_0.npy", np.ones((1, DIM), np.float16))


def make_root(root: Root, recipe: Recipe, num_units: int, num_rows: int) -> None:
    """A sealed root with `num_units` of samples, downloads, vectors and scores, not waiting for the disk."""
    root.create(sealed=True)
    same = _files_without_pictures()
    with ThreadPoolExecutor(LOCAL_THREADS if root.is_local else REMOTE_THREADS) as pool:
        written = pool.map(lambda number: _write_unit(root, number, num_rows, same), range(num_units))
        sums = dict(chain.from_iterable(found.items() for found in written))
    root.publish_json(f"plans/{BATCH}.json", _plan(recipe, num_units, num_rows))
    model = identify_model(resolve_model(recipe))
    root.begin_stage("downloads", content_settings(recipe.download))
    root.begin_stage(metadata_folder("embeddings"), {"model": model})
    for name, item in build_filters(recipe).items():
        root.begin_stage(scores_table(name), item.config())
    seal_tables(root, summed_tables(root), sums)


def _plan(recipe: Recipe, num_units: int, num_rows: int) -> dict[str, Any]:
    total = num_units * num_rows
    inputs = [{**describe_input(item), "num_rows": total} for item in find_inputs(recipe)]  # of one row in truth
    return {
        "batch": BATCH,
        "number": 0,
        "inputs": inputs,
        "totals": {"samples": total},
        "units": {f"{number:06d}": num_rows for number in range(num_units)},
        "large_domains": {},
        "num_rows_per_unit": num_rows,
    }


def _files_without_pictures() -> dict[str, bytes]:
    """What stands for the units of each stage that works on pictures; the same for every unit, as none came."""
    array = io.BytesIO()
    np.save(array, np.zeros((0, DIM), np.float16))
    scores = pa.schema([("uid", pa.string()), ("caption_chars", pa.int32()), ("caption_words", pa.int32())])
    return {
        "metadata": parquet_bytes(schema.EMBEDDINGS.empty_table()),
        "vectors": array.getvalue(),
        "scores": parquet_bytes(scores.empty_table()),
    }


def _write_unit(root: Root, number: int, num_rows: int, same: dict[str, bytes]) -> dict[str, Sum]:
    """The files of one unit; what each of them holds."""
    unit = f"{BATCH}-{number:06d}"
    keys = [(f"http://h{number}.test/{k}.jpg", f"a picture of thing {k} in {number}") for k in range(num_rows)]
    uids = sorted((schema.uid(*key), *key) for key in keys)
    samples = {name: pa.nulls(num_rows, schema.SAMPLES.field(name).type) for name in schema.SAMPLES.names}
    samples |= {name: pa.array([row[k] for row in uids]) for k, name in enumerate(("uid", "url", "caption"))}
    samples["source"] = pa.array(["laion", "coyo"] * (num_rows // 2) + ["laion"] * (num_rows % 2))
    downloads = {name: pa.nulls(num_rows, schema.DOWNLOADS.field(name).type) for name in schema.DOWNLOADS.names}
    downloads |= {"uid": samples["uid"], "status": pa.array(["http_404"] * num_rows)}
    downloads["fetch_round"] = pa.array([0] * num_rows, pa.int32())
    files = {
        samples_file(unit): parquet_bytes(pa.table(samples, schema.SAMPLES)),
        unit_file("downloads", unit): parquet_bytes(pa.table(downloads, schema.DOWNLOADS)),
        vectors_file(unit): same["vectors"],
        metadata_file(unit): same["metadata"],
        unit_file(scores_table("caption_length"), unit): same["scores"],
    }
    for rel, data in files.items():
        _write(root, rel, data)
    return {rel: sum_bytes(data) for rel, data in files.items()}


def _write(root: Root, rel: str, data: bytes) -> None:
    if root.is_local:
        path = Path(root.full(rel))
        with contextlib.suppress(FileNotFoundError):
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    else:
        root.put(rel, data)


def finish_versions(root: Root, recipe: Recipe) -> None:
    """Enter the duplicates and the train shards that dedupe and pack make where no picture came and none is kept."""
    with sealing(root, [DUPLICATES]) as recording:
        plan = plan_dedupe(recipe, recording)
        recording.publish_current(DUPLICATES, plan.fp, [], plan.recorded, plan.inputs)
    with sealing(root, ["train", "train_index"]) as recording:
        for work in _packings(recording, recipe):
            version, shard = work.version, work.version.shard(0)
            recording.publish(shard, bytes(10_240))  # a tar without members
            recording.publish_parquet(version.part(0), version.columns.empty_table())
            found = {"num_samples": 0, "num_bytes": 10_240, "sha256": file_sha256(recording, shard)}
            publish_version(work, [{"shard": 0, **found}])


def _packings(root: Root, recipe: Recipe) -> Iterator[Any]:
    """What is to be packed, if anything is."""
    work = find_work(root, recipe.pack, resolve_lists(recipe))
    if work is not None:
        yield work
