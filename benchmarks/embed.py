"""How much of the bare forward's rate `curate embed` reaches, decoding included.

    python -m benchmarks.embed --photographs /data/flickr8k --folder /tmp/embed

One process embeds photographs of 160 pixels from a raw shard, and then only runs the model on as many plain pictures;
both take turns, so that whatever else the machine does meets both. Weights are random.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.table import write
from benchmarks.train_filter import fill, make_row
from curation.storage import Root
from jobs.embed import embed_unit
from jobs.embedders import load_embedder
from jobs.embedders.clip_checkpoint import ClipCheckpoint
from trainer.models import build
from trainer.weights import save_model

ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder with images/")
    parser.add_argument("--folder", type=Path, required=True, help="where the root and the models are made")
    parser.add_argument("--pictures", type=int, default=32, help="of a round, a multiple of 32 (32)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    root = Root(arguments.folder / "root")
    if not root.exists("root.json"):
        files = sorted((arguments.photographs / "images").glob("*.jpg"))[: arguments.pictures]
        rows = [make_row("pool", file.name, [f"photograph {file.stem}"]) for file in files]
        fill(root, rows, arguments.photographs / "images")
    rows = [measure(root, name, arguments.folder, arguments.pictures) for name in ("eva02-b-16",)]
    notes = [
        f"{arguments.pictures} photographs a round, {ROUNDS} rounds in turn; one thread of torch, two that decode.",
        "`embed` reads, checks sha256, decodes, resizes, encodes pictures and captions, and publishes; `forward` "
        "encodes plain pictures and as many captions that are in memory.",
    ]
    sys.stdout.write(write("embed", rows, notes, ("torch", "numpy")))


def measure(root: Root, name: str, folder: Path, num_pictures: int) -> dict[str, str | float]:
    """Pictures a second both ways, and their ratio."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        save_model(build(name), path)
    embedder = load_embedder(str(path))
    assert isinstance(embedder, ClipCheckpoint)
    (unit,) = root.units("downloads")
    embed_s = forward_s = 0.0
    for _ in range(ROUNDS):
        embed_s += clock(lambda: embed_unit(root, unit, str(path), 32, num_decoders=2))
        forward_s += clock(lambda: run_forward(embedder, num_pictures))
    total = ROUNDS * num_pictures
    return {"model": name, "embed/s": total / embed_s, "forward/s": total / forward_s, "ratio": forward_s / embed_s}


def run_forward(embedder: ClipCheckpoint, num_pictures: int) -> None:
    pixels = [np.zeros((embedder.image_size, embedder.image_size, 3), np.uint8)] * 32
    for _ in range(0, num_pictures, 32):
        embedder.encode(pixels)
        embedder.embed_texts([""] * 32, [f"photograph 1000268201_{number}" for number in range(32)])


def clock(work: object) -> float:
    assert callable(work)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
