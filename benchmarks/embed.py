"""How much of the bare forward's rate `curate embed` reaches, decoding included.

    python -m benchmarks.embed --photographs /data/flickr8k --folder /tmp/embed

One process embeds photographs of 160 pixels from a raw shard, and then only runs the model on as many plain pictures;
both take turns, so that whatever else the machine does meets both. Weights are random. The device is the processor that
also decodes: with one thread of torch a core is left for decoding, as a GPU leaves all of them, and with a thread for
each core decoding takes from the model what it needs itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.table import write
from benchmarks.train_filter import fill, make_row
from curation.storage import Root
from curation.tables import downloads_file
from jobs.embed import embed_unit, read_stored_picture
from jobs.embedders import load_embedder
from jobs.embedders.clip_checkpoint import ClipCheckpoint
from trainer.models import build
from trainer.weights import save_model

ROUNDS = 3
BATCH = 32
MODELS = {"eva02-b-16": 32, "filter-small": 960}
"""Pictures of a round, multiples of BATCH."""
ARRANGEMENTS = ((1, 2), (2, 2), (2, 1))
"""Threads of torch, and threads that decode."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder with images/")
    parser.add_argument("--folder", type=Path, required=True, help="where the root and the models are made")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, num_pictures in MODELS.items():
        root = make_root(arguments.folder / f"root-{num_pictures}", arguments.photographs / "images", num_pictures)
        rows += [measure(root, name, arguments.folder, *arrangement) for arrangement in ARRANGEMENTS]
    load = os.getloadavg()[1]
    cores = len(os.sched_getaffinity(0))
    notes = [
        f"Photographs of a round: {', '.join(f'{name} {count}' for name, count in MODELS.items())}; {ROUNDS} rounds "
        "in turn. `torch` is its threads, `decoders` the threads that read and decode; a Spark task on cores has 1 and "
        "2.",
        "`embed` reads, checks sha256, decodes, resizes, encodes pictures and captions, and publishes; `forward` "
        "encodes plain pictures and as many captions that are in memory; `prepare` reads, checks, decodes and resizes.",
        "CPU ms are of a picture, all threads of the process together. `ratio` is of seconds, `CPU ratio` of CPU time; "
        f"other work on the machine tells in the former (mean load {load:.0f}, {cores} cores).",
        "`at most` is the ratio that the CPU time allows: the seconds of `forward` by what `forward` and `prepare` "
        "together take when all cores share them evenly, where that is more.",
        "Target (issue 16): a ratio of 0.9.",
    ]
    sys.stdout.write(write("embed", rows, notes, ("torch", "numpy")))


def make_root(folder: Path, images: Path, num_pictures: int) -> Root:
    """A root of one unit with the first `num_pictures` of `images`; kept when it stands already."""
    root = Root(folder)
    if not root.exists("root.json"):
        files = sorted(images.glob("*.jpg"))[:num_pictures]
        fill(root, [make_row("pool", file.name, [f"photograph {file.stem}"]) for file in files], images)
    return root


@dataclass
class Cost:
    """Seconds and CPU seconds of what ran under it."""

    seconds: float = 0.0
    cpu_s: float = 0.0

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        started, before = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - started
        self.cpu_s += time.process_time() - before


def measure(root: Root, name: str, folder: Path, num_threads: int, num_decoders: int) -> dict[str, str | float]:
    """Pictures a second both ways, CPU time of each, and the ratios."""
    torch.set_num_threads(num_threads)
    num_pictures = MODELS[name]
    path = folder / f"{name}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        save_model(build(name), path)
    embedder = load_embedder(str(path))
    assert isinstance(embedder, ClipCheckpoint)
    (unit,) = root.units("downloads")
    run_forward(embedder, BATCH)
    embed, forward, prepare = Cost(), Cost(), Cost()
    for _ in range(ROUNDS):
        with embed.counting():
            embed_unit(root, unit, str(path), BATCH, num_decoders=num_decoders)
        with forward.counting():
            run_forward(embedder, num_pictures)
        with prepare.counting():
            run_prepare(root, unit, embedder)
    total = ROUNDS * num_pictures
    least_s = (forward.cpu_s + prepare.cpu_s) / len(os.sched_getaffinity(0))
    return {
        "model": name,
        "torch": num_threads,
        "decoders": num_decoders,
        "embed/s": total / embed.seconds,
        "forward/s": total / forward.seconds,
        "ratio": forward.seconds / embed.seconds,
        "embed CPU ms": 1e3 * embed.cpu_s / total,
        "forward CPU ms": 1e3 * forward.cpu_s / total,
        "prepare CPU ms": 1e3 * prepare.cpu_s / total,
        "CPU ratio": forward.cpu_s / embed.cpu_s,
        "at most": min(1.0, forward.seconds / least_s),
    }


def run_prepare(root: Root, unit: str, embedder: ClipCheckpoint) -> None:
    for row in root.read_parquet(downloads_file(unit)).to_pylist():
        embedder.decode(read_stored_picture(root, row))


def run_forward(embedder: ClipCheckpoint, num_pictures: int) -> None:
    pixels = [np.zeros((embedder.image_size, embedder.image_size, 3), np.uint8)] * BATCH
    for _ in range(0, num_pictures, BATCH):
        embedder.encode(pixels)
        embedder.embed_texts([""] * BATCH, [f"photograph 1000268201_{number}" for number in range(BATCH)])


if __name__ == "__main__":
    main()
