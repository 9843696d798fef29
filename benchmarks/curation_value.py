"""Does curation help? The same small EVA-CLIP at the same compute on a pool with known harm, raw and curated.

    python -m benchmarks.curation_value --photographs /data/flickr8k --folder /tmp/value

The pool, of which a third is as it should be, is described in benchmarks/curation_value_pool.py, the recipe is
benchmarks/curation_value.toml. `curate` adopts, trains the filter on trusted pairs, scores, removes duplicates and
selects; each arm is `trainer.train` on one query of that root, with as many samples seen. Recall is measured on
held-back photographs. What has been done is not done again: a run that was killed goes on, and --collect only writes
the results of the runs that have ended.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.curation_value_arms import MODEL, Arm, list_arms
from benchmarks.curation_value_pool import CAPTIONS, HELD, TRUTH, make_pool, read_photographs
from benchmarks.curation_value_results import PLACES, ROW, score_photographs, write_results
from trainer import evaluate
from trainer.evaluation.sources import read_captions
from trainer.launch import Rank

BIN = Path(sys.executable).parent
RECIPE = Path(__file__).with_suffix(".toml")
FILTER_SAMPLES = 32_000
NUM_FIRST = 4
"""Arms that are compared with each other: all of their seeds come before the other arms."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed, and its folder."""

    arm: Arm
    number: int
    seed: int
    folder: Path

    @property
    def is_done(self) -> bool:
        return (self.folder / ROW).exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder with images/ and the lists")
    parser.add_argument("--folder", type=Path, required=True, help="where everything is made; a later call goes on")
    parser.add_argument("--samples", type=int, default=51_200, help="pairs seen by every arm (51,200)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each (2)")
    parser.add_argument("--collect", action="store_true", help="only write the results of the runs that have ended")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if not arguments.collect:
        prepare(arguments.photographs.resolve(), folder)
    arms = list_arms(folder, arguments.samples)
    runs = [
        Run(arm=arm, number=number, seed=seed, folder=folder / "runs" / re.sub(r"\W+", "-", f"{arm.name} {seed}"))
        for seed in range(arguments.seeds)
        for number, arm in enumerate(arms)
    ]
    if not arguments.collect:
        run_all(folder, sorted(runs, key=lambda run: run.number >= NUM_FIRST), arguments.processes)
    sys.stdout.write(write_results(folder))


def prepare(photographs: Path, folder: Path) -> None:
    """The pool, its root, the filter and the selection: each of them once."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / TRUTH).exists():
        make_pool(read_photographs(photographs), folder)
    shutil.copyfile(RECIPE, folder / "recipe.toml")
    root, recipe = str(folder / "root"), str(folder / "recipe.toml")
    of_root = ["--recipe", recipe, "--root", root]
    pictures = [str(folder / "pictures" / name) for name in ("pool", "trusted")]
    curate(folder, "adopt", *pictures, "--captions", str(folder / CAPTIONS), "--root", root)
    settings = [f"phases.0.samples={FILTER_SAMPLES}", "zero.stage=0"]
    changes = [word for setting in settings for word in ("--set-training", setting)]
    curate(folder, "train-filter", *of_root, "--name", "dfn", "--where", "source = 'trusted'", *changes)
    for stage in ("dedupe", "score", "select"):
        curate(folder, stage, *of_root)


def curate(folder: Path, *words: str) -> None:
    """`curate WORDS`, as a user types it, once."""
    run_once(folder, f"curate-{words[0]}", [str(BIN / "curate"), *words])


def run_once(folder: Path, name: str, line: Sequence[str]) -> None:
    """Run `line` with one thread unless it has ended well before. Raises SystemExit when it fails."""
    done, log = folder / f"{name}.done", folder / f"{name}.log"
    if done.exists():
        return
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = os.pathsep.join((str(BIN), environment.get("PATH", "")))
    with open(log, "w") as sink:
        if status := subprocess.run(line, env=environment, stdout=sink, stderr=sink, check=False).returncode:
            raise SystemExit(f"{name} ended with status {status}: see {log}")
    done.touch()


def run_all(folder: Path, runs: Sequence[Run], num_processes: int) -> None:
    """Every run that has not ended, some at a time, with the time that is left."""
    left = [run for run in runs if not run.is_done]
    started, ended = time.monotonic(), 0
    with ThreadPoolExecutor(num_processes) as pool:
        for row in pool.map(lambda run: train_and_measure(folder, run), left):
            ended += 1
            minutes = (time.monotonic() - started) / 60 * (len(left) - ended) / ended
            told = f"{row['arm']}, seed {row['seed']}: recall@10 {row['recall@10']:.4f}"
            sys.stderr.write(f"{told}; {len(runs) - len(left) + ended} of {len(runs)}, {minutes:.0f} min left\n")


def train_and_measure(folder: Path, run: Run) -> dict[str, Any]:
    """One run, and its row when it has ended."""
    run.folder.mkdir(parents=True, exist_ok=True)
    starts = []
    if run.arm.pretrained:
        train(folder, run, "distill", run.arm.pretrained, ["distill.teacher=" + MODEL, *pretraining(folder)])
        starts = [f"model.image_weights={run.folder / 'distill' / 'model.safetensors'}"]
    train(folder, run, "train", run.arm.samples, starts)
    places = find_places(run.folder / "train" / "model.safetensors", folder / HELD)
    np.savez(
        run.folder / PLACES,
        text_to_image=places["text_to_image"],
        image_to_text=places["image_to_text"],
        image_of=places["image_of"],
    )
    row = {"arm": run.arm.name, "number": run.number, "seed": run.seed, "where": run.arm.where}
    row |= {"samples": run.arm.samples, "pretrained": run.arm.pretrained}
    row["recall@10"] = float(score_photographs(**places)[:, -1].mean())
    for part in ("distill", "train"):
        shutil.rmtree(run.folder / part / "checkpoints", ignore_errors=True)
    (run.folder / ROW).write_text(json.dumps(row))
    return row


def pretraining(folder: Path) -> list[str]:
    """Masked image modelling with the filter as its teacher."""
    return [f"distill.teacher_weights={folder / 'dfn.safetensors'}", "distill.crop_scale=[0.5, 1.0]"]


def train(folder: Path, run: Run, command: str, samples: int, changes: Sequence[str]) -> None:
    """`python -m trainer.COMMAND` on the arm's query."""
    settings = [
        f"folder={run.folder / command}",
        f"data.root={folder / 'root'}",
        f"data.where={run.arm.where}",
        f"train.seed={run.seed}",
        f"phases.0.samples={samples}",
        "zero.stage=0",
        *changes,
    ]
    line = [sys.executable, "-m", f"trainer.{command}", "--config", MODEL]
    run_once(run.folder, command, [*line, *(word for setting in settings for word in ("--set", setting))])


def find_places(weights: Path, held: Path) -> dict[str, np.ndarray]:
    """How many candidates come before the right one: `text_to_image` of each caption, `image_to_text` of each picture.

    `image_of` is the picture that each caption belongs to.
    """
    torch.set_num_threads(1)
    settings = evaluate.read_settings(None, str(weights), ["eval.resize=['squash']"])
    encoder = evaluate.make_encoder(
        evaluate.load_frozen_model(settings, torch.device("cpu")), settings, Rank(), torch.device("cpu")
    )
    captions = read_captions(held)
    text = encoder.encode_texts(captions.texts, "captions").numpy()
    image = encoder.encode_images(captions.pictures, ["squash"], "pictures")["squash"].numpy()
    return count_before(text @ image.T, np.array(captions.image_of))


def count_before(similarities: np.ndarray, image_of: np.ndarray) -> dict[str, np.ndarray]:
    """Places of `similarities` `[captions, pictures]`, as `find_places` returns them; the first place is 0."""
    own = similarities[np.arange(len(image_of)), image_of]
    best = np.full(similarities.shape[1], -np.inf)
    np.maximum.at(best, image_of, own)
    to_image, to_text = (similarities > own[:, None]).sum(1), (similarities > best).sum(0)
    return {"text_to_image": to_image, "image_to_text": to_text, "image_of": image_of}


if __name__ == "__main__":
    main()
