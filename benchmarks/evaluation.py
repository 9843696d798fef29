"""What evaluation costs beside the model: encoding pictures beside the bare forward pass, and retrieval of many pairs.

    .venv/bin/python -m benchmarks.evaluation --pairs 100000

Pictures are JPEGs of 500 × 375 in memory, encoded in turns with the same batches that were decoded before. Wall clock
means little on a busy machine, so CPU seconds of the process stand beside it. Targets (issue 15): 0.95 of the bare
forward's rate; 100,000 × 100,000 pairs of 512 dimensions in 2 minutes and 4 GB on two cores.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.table import write
from tests.support.memory import memory_bytes
from trainer import models
from trainer.config import TrainConfig
from trainer.data import EvalTransform, preprocess
from trainer.evaluation import scores
from trainer.evaluation.encoder import Encoder, Picture
from trainer.launch import Rank
from trainer.objectives.contrastive_model import ContrastiveModel

DIM, TURNS = 512, 3
NOTES = (
    "CPU seconds are those of all threads of the process; where they are less than the cores times the wall clock, the "
    "machine was busy with other work, and the wall clock is not the program's.",
    "Of encoding, the fastest of three turns by CPU seconds, the two in turns. `share` is the bare forward's CPU "
    "seconds by those of encoding, which decodes, resizes and normalises too.",
    "Targets (issue 15): share 0.95; 100,000 pairs in 120 s and 4,000 MB on two cores.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="eva02-b-16")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000])
    arguments = parser.parse_args()
    rows = [measure_retrieval(number) for number in arguments.pairs]
    rows += measure_encoding(arguments.model, arguments.pictures, arguments.batch_size)
    sys.stdout.write(write("evaluation", rows, NOTES, ("numpy", "torch")))


def measure_retrieval(num_pairs: int) -> dict[str, Any]:
    """Recall both ways of `num_pairs` pairs."""
    generator = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(num_pairs, DIM, generator=generator), dim=1)
    text = F.normalize(image + 0.2 * torch.randn(num_pairs, DIM, generator=generator), dim=1)
    found: dict[str, float] = {}
    seconds = _time(lambda: found.update(scores.score_retrieval(image, text, torch.arange(num_pairs))))
    what = f"retrieval, {num_pairs:,} × {num_pairs:,}, {DIM} dimensions"
    return _row(what, *seconds) | {"recall@1": found["image_to_text_recall@1"]}


def measure_encoding(name: str, num_pictures: int, batch_size: int) -> list[dict[str, Any]]:
    """The encoder and the bare forward pass on the same pictures."""
    model = ContrastiveModel(models.build(name), TrainConfig(batch_size=1)).eval()
    size = model.clip.config.vision.image_size
    pictures = [Picture(str(number), _draw_jpeg(number)) for number in range(num_pictures)]
    pixels = torch.stack([preprocess(bytes(picture.data()), EvalTransform(size, "crop")) for picture in pictures])
    encoder = Encoder(model, rank=Rank(), device=torch.device("cpu"), image_size=size, batch_size=batch_size)

    def forward() -> None:
        with torch.no_grad():
            for batch in pixels.split(batch_size):
                model(batch, None)

    forward()
    turns = [(_time(forward), _time(lambda: encoder.encode_images(pictures, ["crop"], "set"))) for _ in range(TURNS)]
    bare, ours = (min((turn[side] for turn in turns), key=lambda seconds: seconds[1]) for side in (0, 1))
    what = f"{name}, {num_pictures} pictures in batches of {batch_size}"
    return [_row(f"{what}: the forward alone", *bare), _row(f"{what}: encoded", *ours) | {"share": bare[1] / ours[1]}]


def _draw_jpeg(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (15, 20, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _time(work: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _row(what: str, wall_s: float, cpu_s: float) -> dict[str, Any]:
    peak_mb = memory_bytes("VmHWM") / 1e6
    return {"what": what, "wall s": wall_s, "CPU s": cpu_s, "peak MB": peak_mb, "share": None, "recall@1": None}


if __name__ == "__main__":
    main()
