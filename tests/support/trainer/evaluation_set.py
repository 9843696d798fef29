"""A small set of pictures to evaluate on, and what each rank does in the tests of evaluation on several."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.support import small_root
from trainer import config, evaluate, launch, weights
from trainer.config import Config
from trainer.evaluation import prompts
from trainer.launch import read_rank
from trainer.weight_files import WeightFile

CLASSES = {"red_square": 5, "green_square": 4, "blue_square": 4}
"""Sub-folder → pictures; 13 divide by no number of ranks or batch size."""


def write_classes(folder: Path) -> Path:
    """Pictures of three colours, wider than high so that cropping and squashing differ."""
    rng = np.random.default_rng(0)
    for channel, (name, count) in enumerate(CLASSES.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (40, 90, 3), dtype=np.uint8)
            pixels[:, :, channel] = rng.integers(130, 255)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def write_captions(classes: Path) -> Path:
    """Two captions for some of the pictures, one for the others."""
    lines = []
    for picture in sorted(classes.rglob("*.png")):
        lines.append(f"{picture.relative_to(classes.parent)}\ta {picture.parent.name} number {picture.stem}")
        if int(picture.stem) % 2:
            lines.append(
                f"{picture.relative_to(classes.parent)}\tanother caption of {picture.stem}, {picture.parent.name}"
            )
    file = classes.with_suffix(".tsv")
    file.write_text("\n".join(lines) + "\n")
    return file


def write_class_tars(classes: Path, folder: Path) -> Path:
    """The same pictures and classes as a benchmark's webdataset: two tars, the later pictures in the second."""
    names = sorted(CLASSES)
    pictures = sorted(classes.rglob("*.png"))
    (folder / "test").mkdir(parents=True)
    for number, part in enumerate((pictures[:5], pictures[5:])):
        members = {}
        for index, picture in enumerate(part):
            members[f"s{index:04d}.cls"] = str(names.index(picture.parent.name)).encode()
            members[f"s{index:04d}.png"] = picture.read_bytes()
        (folder / "test" / f"{number}.tar").write_bytes(small_root.tar(members)[0])
    (folder / "test" / "nshards.txt").write_text("2")
    (folder / "classnames.txt").write_text("".join(f"{name.replace('_', ' ')}\n" for name in names))
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    return folder


def write_probe(classes: Path, folder: Path) -> Path:
    """The pictures with odd numbers to learn from, the others to test on."""
    for picture in classes.rglob("*.png"):
        part = folder / ("train" if int(picture.stem) % 2 else "test") / picture.parent.name
        part.mkdir(parents=True, exist_ok=True)
        (part / picture.name).write_bytes(picture.read_bytes())
    return folder


def write_caption_tars(classes: Path, folder: Path) -> Path:
    """The same pictures and captions as a benchmark's webdataset."""
    members: dict[str, bytes] = {}
    for line in classes.with_suffix(".tsv").read_text().splitlines():
        name, caption = line.split("\t")
        key = name.replace("/", "-").removesuffix(".png")
        members[f"{key}.png"] = (classes.parent / name).read_bytes()
        members[f"{key}.txt"] = members.get(f"{key}.txt", b"") + f"{caption}\n".encode()
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "0.tar").write_bytes(small_root.tar(members)[0])
    (folder / "dataset_type.txt").write_text("retrieval\n")
    return folder


def write_label_sets(classes: Path, folder: Path) -> Path:
    """The same pictures as VOC2007 of the paper's table, a vector of classes beside each; some have two classes."""
    names = list(prompts.NAMES["VOC2007"])
    members = {}
    for number, picture in enumerate(sorted(classes.rglob("*.png"))):
        marks = np.zeros(len(names), np.float32)
        marks[[number % 3, number % 5]] = 1
        buffer = io.BytesIO()
        np.save(buffer, marks)
        members |= {f"s{number:02d}.npy": buffer.getvalue(), f"s{number:02d}.png": picture.read_bytes()}
    (folder / "wds_voc2007_multilabel" / "test").mkdir(parents=True)
    (folder / "wds_voc2007_multilabel" / "test" / "0.tar").write_bytes(small_root.tar(members)[0])
    return folder


def settings(weights_file: Path | str, classes: Path | str, *overrides: str) -> Config:
    """Everything that can be measured of a folder and its captions."""
    sets = [f"eval.image_folders.colours={classes}", f"eval.captions.captions={Path(classes).with_suffix('.tsv')}"]
    return evaluate.read_settings(None, str(weights_file), [*sets, "eval.batch_size=4", *overrides])


def measure(weights_file: str, classes: str, out: str, overrides: list[str]) -> None:
    """The command's work on this rank, the results into `out`."""
    rank = read_rank()
    launch.prepare_environment(rank)
    evaluate.run_evaluation(settings(weights_file, classes, "model.name=debug", *overrides), rank, Path(out))


def after_training(weights_file: str, classes: str, out: str) -> None:
    """The same through an engine that trains at ZeRO stage 3, as the end of training measures."""
    from trainer import zero
    from trainer.models.clip import Clip
    from trainer.objectives.contrastive_model import ContrastiveModel

    rank = read_rank()
    launch.prepare_environment(rank)
    training = config.load_config("debug", ["zero.stage=3"])
    with launch.process_group(rank) as device:
        zero_settings = zero.make_zero_config(training, rank.world_size, on_gpu=False)
        with zero.shard_while_building(training, zero_settings):
            from trainer import models

            clip = Clip(models.config("debug"))
        weights.fill_model(clip, WeightFile(Path(weights_file)))
        module = ContrastiveModel(clip, training.train)
        engine = zero.make_engine(module, torch.optim.SGD(module.parameters(), lr=0.1), zero_settings)
        flat = evaluate.evaluate(engine, settings(weights_file, classes), rank, device)
        assert module.training
    if rank.is_first:
        Path(out).write_text(json.dumps(flat))
