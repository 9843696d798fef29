"""The whole way on 4,700 real photographs: time and peak memory of each stage, and of a short training.

    python -m benchmarks.flickr8k --photographs /data/flickr8k --folder /tmp/flickr8k

The photographs (`images/*.jpg`, `captions_en.tsv`: file, number, caption) are served on loopback under many host names;
metadata in LAION-2B's joined schema point at them, with the first caption of each. Every stage is the command that a
user types, in a process of its own. With --folder, what has been measured is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from aiohttp import web

from benchmarks.process_tree import ProcessTree
from benchmarks.table import write
from curation.demo.metadata import LAION
from curation.manifest.manifest import Manifest
from jobs.stages import STAGES

NUM_HOSTS = 211
PORT = 8_196
BIN = Path(sys.executable).parent
MAX_BYTES, MAX_S = 20 << 30, 500.0
TRAINING = "train"
BY_SPARK = {"score, Spark": "jobs/score.py", "pack, Spark": "jobs/pack.py"}
"""Stages that one machine does without Spark: what a cluster would run, on a copy of the root without their tables."""
REPOSITORY = Path(__file__).resolve().parents[1]
NUM_SAMPLES = 14_400
PACKAGES = ("pyspark", "torch", "deepspeed", "pyarrow", "duckdb", "opencv-python-headless")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder with images/ and captions_en.tsv")
    parser.add_argument("--folder", type=Path, help="where the run is made, and left for the next call")
    parser.add_argument("--serve", action="store_true", help="only serve the photographs")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.photographs / "images")
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="flickr8k-"))
    folder.mkdir(parents=True, exist_ok=True)
    rows = metadata(arguments.photographs)
    pq.write_table(pa.Table.from_pylist(rows, LAION), folder / "flickr8k.parquet")
    with server(arguments.photographs):
        measures = [measure(folder, name, command(folder, name)) for name in STAGES]
    copy_for_spark(folder)
    measures += [measure(folder, name, command(folder, name)) for name in (*BY_SPARK, TRAINING)]
    sys.stdout.write(write("flickr8k", table(folder, measures), notes(folder), PACKAGES))


def metadata(photographs: Path) -> list[dict[str, Any]]:
    """One row a photograph, in LAION's schema; scores are drawn from the caption, as nobody has computed any."""
    captions: dict[str, str] = {}
    for line in (photographs / "captions_en.tsv").read_text(encoding="utf-8").splitlines():
        file, _, caption = line.split("\t")
        captions.setdefault(file, caption)
    rows = []
    for number, (file, caption) in enumerate(sorted(captions.items())):
        url = f"http://www{number % 3}.site{number % NUM_HOSTS}.example/{file}"
        digest = hashlib.sha256(f"{url}{caption}".encode()).digest()
        row = {"URL": url, "TEXT": caption, "WIDTH": 160, "HEIGHT": 160, "similarity": 0.28 + digest[0] / 2560}
        row |= {"hash": int.from_bytes(digest[:8], "big", signed=True)}
        rows.append(row | {"punsafe": digest[1] / 2560, "pwatermark": digest[2] / 510})
    return rows


def serve(images: Path) -> None:
    """Serve `images` until the process ends."""
    app = web.Application()
    app.router.add_static("/", images)
    web.run_app(app, host="127.0.0.1", port=PORT, access_log=None, print=None)


@contextmanager
def server(photographs: Path) -> Iterator[None]:
    """`serve` in a process of its own, whose memory does not count."""
    program = [sys.executable, "-m", "benchmarks.flickr8k", "--serve", "--photographs", str(photographs)]
    process = subprocess.Popen(program)
    try:
        time.sleep(2)
        yield
    finally:
        process.terminate()
        process.wait()


def copy_for_spark(folder: Path) -> None:
    """The root that BY_SPARK work on, once."""
    root = folder / "by-spark"
    if not root.exists():
        shutil.copytree(folder / "root", root)
        for made in (*root.glob("scores_*"), root / "train", root / "train_index"):
            shutil.rmtree(made)


def command(folder: Path, name: str) -> list[str]:
    """What a user types for stage `name`, or for the training."""
    root = folder / "root"
    if name in BY_SPARK:
        settings = [f'sources.0.paths=["{folder.resolve() / "flickr8k.parquet"}"]']
        script = str(REPOSITORY / BY_SPARK[name])
        head = [str(BIN / "spark-submit"), script, "--recipe", "flickr8k", "--root", str(folder / "by-spark")]
    elif name != TRAINING:
        settings = [
            f'sources.0.paths=["{folder.resolve() / "flickr8k.parquet"}"]',
            f'download.connect_to={{"*.example" = "127.0.0.1:{PORT}"}}',
        ]
        head = [str(BIN / "curate"), name, "--recipe", "flickr8k", "--root", str(root)]
    else:
        settings = [f"folder={folder / 'training'}", f"data.root={root}", f"phases.0.samples={NUM_SAMPLES}"]
        head = [str(BIN / "deepspeed"), "--num_gpus", "2", "--module", "trainer.train", "--config", "debug"]
    return [*head, *(word for setting in settings for word in ("--set", setting))]


def measure(folder: Path, name: str, line: list[str]) -> dict[str, Any]:
    """Seconds, CPU seconds and peak bytes of one command; as recorded when it has been measured before."""
    record = folder / f"{name}.json"
    if record.exists():
        recorded: dict[str, Any] = json.loads(record.read_text())
        return recorded
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = os.pathsep.join((str(BIN), environment.get("PATH", "")))
    with open(folder / f"{name}.log", "w") as log:
        began = time.time()
        process = subprocess.Popen(line, env=environment, stdout=log, stderr=log)
        tree = ProcessTree(process.pid, MAX_BYTES, MAX_S)
        status = process.wait()
        ended = time.time()
        tree.stop()
    if status:
        raise SystemExit(f"{name} ended with status {status}: see {folder / f'{name}.log'}")
    cpu_s = tree.cpu_s(began, ended)
    found: dict[str, str | float] = {"stage": name, "seconds": ended - began, "CPU s": cpu_s}
    found["peak MB"] = tree.peak_bytes / 1e6
    record.write_text(json.dumps(found))
    return found


def table(folder: Path, measures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`measures` with the rows that each stage was given."""
    ask = "select count(*), count(*) filter (where status = 'ok'), count(*) filter (where kept) from manifest"
    num_rows, num_pictures, num_kept = Manifest(folder / "root").query(ask).fetchall()[0]
    given = {"ingest": num_rows, "download": num_rows, "select": num_rows, "pack": num_kept, TRAINING: NUM_SAMPLES}
    given["pack, Spark"] = num_kept
    rows = []
    for found in measures:
        count = given.get(found["stage"], num_pictures)
        rate = count / found["seconds"]
        rows.append({"stage": found["stage"], "rows": count, **found, "rows/s": rate})
    return rows


def notes(folder: Path) -> list[str]:
    """What the figures hold, and what came out."""
    funnel = Manifest(folder / "root").query(
        "select coalesce(reason, 'kept'), count(*) from selection group by 1 order by 2 desc, 1"
    )
    last = json.loads((folder / "training" / "metrics.jsonl").read_text().splitlines()[-1])
    recalls = {key: value for key, value in last.items() if key.startswith("pairs/crop") and key.endswith("@1")}
    return [
        "Each stage is `curate STAGE` in a process of its own, the start of Python included, and where it works by "
        "Spark (download, embed, dedupe by vectors) that of Java (about 7 s). `STAGE, Spark` is `spark-submit "
        "jobs/STAGE.py`, which a cluster runs, on a copy of the root.",
        "`peak MB` is the resident memory of the command and all below it together (Java, Python workers, decoders), "
        "shared pages counted once a process.",
        "The photographs are served from the same two cores by a process that is not counted.",
        f"Selection: {', '.join(f'{reason} {count:,}' for reason, count in funnel.fetchall())}.",
        f"Training: the debug model on two CPU ranks, {NUM_SAMPLES:,} samples, evaluation on its pairs included: "
        f"{', '.join(f'{key.rpartition(chr(47))[2]} {value:.4f}' for key, value in recalls.items())}.",
    ]


if __name__ == "__main__":
    main()
