"""Loaders side by side on the same photographs: samples a second, bytes read, first batch, resume, memory.

    quiet .venv/bin/python -m benchmarks.loader --budget 500     # again until it says that every part is done

Peers: webdataset, wids, mosaicml-streaming (from its own environment, --streaming-python). One process each without
workers, so rates are those of one worker; files are in the page cache. Each part runs in a process of its own and is
kept in the folder, so a run that was stopped goes on. Writes benchmarks/results/loader.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import loader_set
from benchmarks.table import write
from curation.storage import Root

LOADERS = ("ours", "webdataset", "wids", "streaming")
FRACTIONS = (1.0, 0.5, 0.1, 0.01)
BATCH_SIZE = 64
SECONDS = 2.5
TARGETS = {(1.0, False): 1.0, (1.0, True): 1.3, (0.1, False): 5.0, (0.01, False): 30.0}
"""Least rate, as a multiple of webdataset's (issue 5)."""
LARGE_ROWS = 10_000_000
PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench-loader"), help="where data and parts are kept")
    parser.add_argument("--photographs", type=Path, default=PROJECT.parent / "shared/data/flickr8k")
    parser.add_argument("--streaming-python", type=Path, default=Path("/tmp/peers/streaming/bin/python"))
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no part is begun")
    parser.add_argument("--prepare", action="store_true", help="make the data and measure nothing")
    parser.add_argument("--part", help="for the benchmark's own use")
    arguments = parser.parse_args()
    if arguments.part:
        sys.stdout.write(json.dumps(PARTS[arguments.part](arguments.folder)) + "\n")
        return
    prepare(arguments)
    if not arguments.prepare:
        measure(arguments)


def prepare(arguments: argparse.Namespace) -> None:
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    root = loader_set.pack_photographs(folder / "root", arguments.photographs)
    if arguments.streaming_python.exists():
        loader_set.mds(folder / "mds", root, arguments.streaming_python)
    loader_set.large(folder / "large", root, LARGE_ROWS)


def measure(arguments: argparse.Namespace) -> None:
    """Run the parts that are not done yet until the budget is spent; write the table when all are."""
    started = time.monotonic()
    results = arguments.folder / "parts"
    results.mkdir(exist_ok=True)
    parts = {**dict(_peers(arguments)), **{name: _own(name, arguments) for name in PARTS}}
    for name, command in parts.items():
        target = results / f"{name}.json"
        if target.exists():
            continue
        if time.monotonic() - started > arguments.budget:
            left = sum(not (results / f"{n}.json").exists() for n in parts)
            sys.stdout.write(f"{left} parts are left; run the same command again.\n")
            return
        sys.stderr.write(f"{name}\n")
        environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        found = json.loads(ran.stdout.splitlines()[-1]) if ran.returncode == 0 else {"error": ran.stderr.strip()[-300:]}
        target.write_text(json.dumps(found))
    sys.stdout.write(report({name: json.loads((results / f"{name}.json").read_text()) for name in parts}))


def _name(loader: str, decode: bool, fraction: float) -> str:
    return f"{loader}-{'decode' if decode else 'bytes'}-{fraction:g}"


def _peers(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    folder, script = arguments.folder, str(Path(__file__).with_name("loader_peers.py"))
    root = Root(folder / "root")
    current = root.current("train_index")
    assert current is not None  # loader_set has packed it
    table = root.read_parquet(current["files"][0], ["uid", "score"])
    for decode in (False, True):
        for fraction in FRACTIONS:
            for loader in LOADERS[1:]:
                uids = [u for u, s in zip(*(c.to_pylist() for c in table.columns), strict=True) if s < fraction]
                options = {
                    "data": str(folder / "mds") if loader == "streaming" else root.full(f"train/{loader_set.VERSION}"),
                    "keys": table["uid"].to_pylist(),
                    "uids": None if fraction == 1 else uids,
                    "decode": decode,
                    "image_size": loader_set.SIDE,
                    "batch_size": BATCH_SIZE,
                    "per_shard": loader_set.PER_SHARD,
                    "seconds": SECONDS,
                    "stub": loader != "streaming",
                }
                python = str(arguments.streaming_python) if loader == "streaming" else sys.executable
                name = _name(loader, decode, fraction)
                path = folder / f"{name}.options.json"
                path.write_text(json.dumps(options))
                yield name, [python, script, "run", loader, str(path)]


def _own(name: str, arguments: argparse.Namespace) -> list[str]:
    return [sys.executable, "-m", "benchmarks.loader", "--folder", str(arguments.folder), "--part", name]


def _ours(folder: Path, decode: bool, fraction: float) -> dict[str, Any]:
    from benchmarks.loader_peers import measure_reader
    from trainer.data import Loader, TrainTransform

    loaders: list[Loader] = []

    def make_reader() -> Loader:
        return Loader(
            folder / "root",
            where=f"score < {fraction}",
            batch_size=BATCH_SIZE,
            transform=TrainTransform(loader_set.SIDE) if decode else None,
            tokenizer=None,
            index_folder=folder / "indexes",
        )

    def epoch(options: dict[str, Any]) -> Iterator[Any]:
        if not loaders:
            loaders.append(make_reader())
        (loader,) = loaders
        loader.set_epoch(options["epoch"])
        return ((batch["pixels"], batch["tokens"][: BATCH_SIZE - batch["padding"]]) for batch in loader)

    make_reader()  # the index is on the disk then, as wids's and streaming's are
    found = measure_reader(epoch, {"seconds": SECONDS})
    loader = loaders[0]
    return found | {
        "bytes_needed_a_sample": found["bytes_a_sample"] * loader.bytes_needed / loader.bytes_read,
        "index_bytes_a_row": loader.index.num_bytes / len(loader.index),
    }


def _resume(folder: Path) -> dict[str, Any]:
    """From nothing but the saved state to the next batch, at 10 M rows: with the index there, and without."""
    from trainer.data import Loader, TrainTransform

    def loader(indexes: Path) -> Loader:
        transform = TrainTransform(loader_set.SIDE)
        return Loader(
            folder / "large", batch_size=BATCH_SIZE, transform=transform, tokenizer=None, index_folder=indexes, seed=1
        )

    cold, warm = folder / "indexes-cold", folder / "indexes-large"
    shutil.rmtree(cold, ignore_errors=True)
    before = loader(warm)
    state = {**before.state_dict(), "epoch": 3, "samples_seen": 6_400_000}
    found = {"index_bytes_a_row": before.index.num_bytes / len(before.index)}
    for name, indexes in (("resume_s", warm), ("resume_without_index_s", cold)):
        started = time.perf_counter()
        resumed = loader(indexes)
        resumed.load_state_dict(state)
        next(iter(resumed))
        found[name] = time.perf_counter() - started
    shutil.rmtree(cold)
    return found


PARTS: dict[str, Any] = {
    **{
        _name("ours", decode, fraction): (lambda folder, d=decode, f=fraction: _ours(folder, d, f))
        for decode in (False, True)
        for fraction in FRACTIONS
    },
    "resume": _resume,
}


def report(parts: dict[str, dict[str, Any]]) -> str:
    """The table: a row for each loader, selectivity and decode; rates beside webdataset's."""
    rows = []
    for decode in (False, True):
        for fraction in FRACTIONS:
            base = parts[_name("webdataset", decode, fraction)].get("samples_s")
            for loader in LOADERS:
                found = parts[_name(loader, decode, fraction)]
                rate = found.get("samples_s")
                rows.append(
                    {
                        "loader": loader,
                        "decode": "yes" if decode else "no",
                        "selected %": fraction * 100,
                        "samples/s": rate,
                        "samples/CPU s": found.get("samples_cpu_s"),
                        "x webdataset": rate / base if rate and base else None,
                        "target x": TARGETS.get((fraction, decode)) if loader == "ours" else None,
                        "KB read a sample": found["bytes_a_sample"] / 1e3 if rate and loader != "wids" else None,
                        "KB needed": found["bytes_needed_a_sample"] / 1e3 if "bytes_needed_a_sample" in found else None,
                        "first batch s": found.get("first_batch_s"),
                        "peak MB": found.get("peak_mb"),
                    }
                )
    resume = parts["resume"]
    notes = [
        f"{loader_set.NUM_SAMPLES:,} samples in shards of {loader_set.PER_SHARD:,}: Flickr8k's 4,700 photographs at "
        f"{loader_set.SIDE} x {loader_set.SIDE}, repeated; batches of {BATCH_SIZE}; one process a loader, no workers, "
        f"one thread of torch, shards in the page cache.",
        "`first batch` is from making the loader, imports aside, with its index on the disk where it has one; "
        "`peak MB` is of the whole process. At 1 % a quarter of what ours reads is padding of the last batch.",
        "Below 100 %, webdataset drops samples while it streams; wids and streaming are asked for the wanted ones by "
        "number. wids maps its files, so what it reads is not counted.",
        "`decode`: RandomResizedCrop (0.9, 1) bicubic to 224 and normalising; Pillow and torchvision for the peers.",
        f"Resume to the next batch at {LARGE_ROWS:,} rows: {resume['resume_s']:.2f} s (target 2), "
        f"{resume['resume_without_index_s']:.1f} s on a machine that has not the index yet. The index takes "
        f"{resume['index_bytes_a_row']:.1f} bytes a selected row (target 40), once a machine.",
        *(f"{name} did not run: {found['error']}" for name, found in parts.items() if "error" in found),
    ]
    return write("loader", rows, notes, ("torch", "numpy", "pillow", "opencv-python-headless", "webdataset", "duckdb"))


if __name__ == "__main__":
    main()
