"""One engine over one set, in a process of its own: `python -m benchmarks.download_engines JOB.json`.

Says on standard output when the work starts and when it ends, one JSON a line; everything before the start (imports, a
Spark session) does not count.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from curation.download.unit import download_unit
from curation.fetch.client import Client
from curation.fetch.urls import parse_url
from curation.images.probe import PictureError
from curation.images.process import inspect
from curation.images.resize import plan_layout, resize
from curation.recipe.config import DownloadConfig
from curation.schema import SAMPLES, uid
from curation.storage import Root

NUM_PROCESSES = 2
FIRST_ROWS = 64
MODES: dict[str, dict[str, Any]] = {
    "224": {"image_size": 224, "resize_mode": "keep_ratio", "encode_quality": 95},
    "224, not measured": {"image_size": 224, "resize_mode": "keep_ratio", "encode_quality": 95, "measure": False},
    "as they came": {"resize_mode": "no"},
    "as they came, not measured": {"resize_mode": "no", "measure": False},
}
Job = dict[str, Any]
"""urls, mode, folder, connect_to."""


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def config_of(job: Job) -> DownloadConfig:
    more = job.get("config", {})
    return DownloadConfig(
        allow_addresses=("127.0.0.0/8",), max_per_host=64, connect_to=job["connect_to"], **MODES[job["mode"]], **more
    )


def curation(job: Job) -> Counter[str]:
    """Our engine, one process a unit as Spark's tasks are; each has had a small unit before, as in a longer run."""
    folder = _empty_folder(job)
    root, first = Root(folder / "root"), Root(folder / "first")
    units = [f"00000000-{number:06d}" for number in range(NUM_PROCESSES)]
    for number, unit in enumerate(units):
        urls = job["urls"][number::NUM_PROCESSES]
        for where, some in ((root, urls), (first, urls[:FIRST_ROWS])):
            where.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(_samples(some), schema=SAMPLES))
    config = config_of(job)
    with multiprocessing.get_context("spawn").Pool(NUM_PROCESSES) as pool:
        pool.map(_import, range(NUM_PROCESSES), 1)
        pool.starmap(download_unit, [(first, unit, config) for unit in units], 1)
        say(event="start")
        started = time.perf_counter()
        pool.starmap(download_unit, [(root, unit, config) for unit in units], 1)
        seconds = time.perf_counter() - started
    return _say_end(seconds, _statuses(root))


def _samples(urls: list[str]) -> list[dict[str, str]]:
    rows = [
        {"uid": uid(url, "picture"), "url": url, "caption": "picture", "source": "bench", "domain": "bench"}
        for url in urls
    ]
    return sorted(rows, key=lambda row: row["uid"])


def _import(number: int) -> None:
    """Wait until a process of the pool is up."""
    time.sleep(0.5)


def _statuses(root: Root) -> Counter[str]:
    tables = [root.read_parquet(f"downloads/{unit}.parquet", ["status"]) for unit in root.units("downloads")]
    return Counter(status for table in tables for status in table["status"].to_pylist())


def _say_end(seconds: float, statuses: Counter[str], ended: float | None = None) -> Counter[str]:
    say(event="end", seconds=seconds, statuses=dict(statuses), ended=ended or time.time())
    return statuses


def _empty_folder(job: Job) -> Path:
    folder = Path(job["folder"], "output")
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def spark(job: Job) -> Counter[str]:
    """`curate download` as it is, on a Spark session that runs already."""
    from curation.recipe.config import load_recipe
    from jobs import download, ingest
    from jobs.spark.session import session

    folder = _empty_folder(job)
    folder.mkdir()
    pq.write_table(pa.table({"URL": job["urls"], "TEXT": ["picture"] * len(job["urls"])}), folder / "part-0.parquet")
    recipe = folder / "recipe.toml"
    recipe.write_text(f'[[sources]]\nname = "bench"\nformat = "laion2b"\npaths = ["{folder}/part-0.parquet"]\n')
    mode = {f"download.{key}": json.dumps(value) for key, value in MODES[job["mode"]].items()}
    mode |= {"download.allow_addresses": '["127.0.0.0/8"]', "download.max_per_host": "64", "download.rounds": "0"}
    mode |= {"download.num_rows_per_unit": str(-(-len(job["urls"]) // NUM_PROCESSES))}
    made, root = load_recipe(recipe, [f"{key}={value}" for key, value in mode.items()]), Root(folder / "root")
    running = session("bench")
    ingest.run(running, made, root)
    running.range(NUM_PROCESSES).rdd.map(lambda n: time.sleep(1)).count()  # Python workers are up
    say(event="start")
    started = time.perf_counter()
    download.run(running, made, root)
    statuses = _say_end(time.perf_counter() - started, _statuses(root))
    running.stop()  # the Java machine would hold the pipe open
    return statuses


def img2dataset(job: Job) -> Counter[str]:
    """img2dataset with its own distributor, 2 processes."""
    from img2dataset import download

    folder = _empty_folder(job)
    folder.mkdir()
    pq.write_table(pa.table({"url": job["urls"], "caption": ["picture"] * len(job["urls"])}), folder / "list.parquet")
    resized = {"resize_mode": "keep_ratio", "image_size": 224}
    mode = resized if job["mode"].startswith("224") else {"resize_mode": "no", "skip_reencode": True}
    say(event="start")
    download(
        url_list=str(folder / "list.parquet"),
        input_format="parquet",
        url_col="url",
        caption_col="caption",
        output_format="webdataset",
        output_folder=str(folder / "shards"),
        processes_count=NUM_PROCESSES,
        thread_count=job["threads"],
        encode_quality=95,
        number_sample_per_shard=-(-len(job["urls"]) // (2 * NUM_PROCESSES)),
        enable_wandb=False,
        **mode,
    )
    # From the first shard's start to the last one's end: its processes import for seconds before.
    spans = [json.loads(path.read_text()) for path in (folder / "shards").glob("*_stats.json")]
    seconds = max(span["end_time"] for span in spans) - min(span["start_time"] for span in spans)
    tables = [pq.read_table(path, columns=["status"]) for path in (folder / "shards").glob("*.parquet")]
    statuses = Counter(status for table in tables for status in table["status"].to_pylist())
    return _say_end(seconds, statuses, max(span["end_time"] for span in spans))


def floor(job: Job) -> Counter[str]:
    """Fetching alone, then decoding, resizing and encoding alone, each on all cores: what nothing gets below."""
    halves = [job | {"urls": job["urls"][number::NUM_PROCESSES]} for number in range(NUM_PROCESSES)]
    with multiprocessing.get_context("spawn").Pool(NUM_PROCESSES) as pool:
        pool.map(_import, range(NUM_PROCESSES), 1)
        say(event="start")
        fetched = max(pool.map(_fetch, halves, 1))
        decoded = max(pool.map(_decode, halves, 1)) if job["mode"].startswith("224") else 0.0
    say(event="parts", fetch_s=fetched, decode_s=decoded)
    return _say_end(fetched + decoded, Counter(ok=len(job["urls"])))


def _fetch(job: Job) -> float:
    async def all_of_them() -> None:
        urls: Iterator[str] = iter(job["urls"])
        config = config_of(job | {"config": {"obey_robots": False}})

        async def worker(client: Client) -> None:
            for url in urls:
                (await client.ask(parse_url(url))).give_back()

        async with Client(config) as client, asyncio.TaskGroup() as group:
            for _ in range(64):
                group.create_task(worker(client))

    started = time.perf_counter()
    asyncio.run(all_of_them())
    return time.perf_counter() - started


def _decode(job: Job) -> float:
    """libjpeg-turbo and OpenCV in one loop over files: no network, no check, no measure, no process of its own."""
    cv2.setNumThreads(1)
    config = config_of(job)
    started = time.perf_counter()
    for url in job["urls"]:
        data = Path(job["pictures"], url.split("/", 3)[3]).read_bytes()
        try:
            header = inspect(data, config)
        except PictureError:
            continue
        layout = plan_layout(header.width, header.height, config)
        if header.format == "jpeg":
            sides = {}
            if layout.reduction > 1:
                n = layout.reduction
                sides = {"min_height": -(-header.height // n), "min_width": -(-header.width // n)}
            image = simplejpeg.decode_jpeg(data, "BGR", **sides)
        else:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        cv2.imencode(".jpg", resize(image, layout, turned=False), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return time.perf_counter() - started


ENGINES: dict[str, Callable[[Job], Counter[str]]] = {
    "engine": curation,
    "spark": spark,
    "img2dataset": img2dataset,
    "floor": floor,
}


if __name__ == "__main__":
    todo = json.loads(Path(sys.argv[1]).read_text())
    ENGINES[todo["engine"]](todo)
