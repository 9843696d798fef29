"""Measure a CLIP: zero-shot classification on folders, and image↔text recall on pairs or files of captions.

    python -m trainer.evaluate --weights model.safetensors --set eval.image_folders.pets=DIR --out results.json
    deepspeed --module trainer.evaluate --config eva-clip-18b --weights FILE --set eval.captions.coco=coco.tsv
    python -m trainer.evaluate --table results.json

Both ways of making a picture square are reported, "crop" and "squash", each by itself: they differ by up to 6 points.
Every rank encodes its share, and all of them run every forward (`trainer.evaluation.encoder`).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curation.command import run_program
from curation.errors import UserError
from curation.settings import apply_overrides, from_dict
from curation.terminal import write_out
from trainer import config as configuration
from trainer import launch, models, weights, zero
from trainer.command import add_shared_arguments, log_to_stderr, run_checked
from trainer.config import Config
from trainer.evaluation import paper_sets, points, probes, prompts, scores, sources, table, videos
from trainer.evaluation.encoder import Encoder
from trainer.evaluation.frames import FrameSet
from trainer.launch import Rank
from trainer.models.clip import Clip
from trainer.objectives.contrastive_model import ContrastiveModel
from trainer.precision import DTYPES
from trainer.preflight import require_gpu_for_fp16
from trainer.weight_files import WeightFile

logger = logging.getLogger("trainer")
PAIRS = "pairs"
"""Name of the set that comes out of [data]."""
PRECISION_SETS = ("VOC2007",)
"""Sets whose average precision is measured even where each picture has one class."""

_NO_RECIPE: dict[str, Any] = {
    "folder": ".",
    "model": {"name": ""},  # found by the shapes of the checkpoint
    "train": {"batch_size": 1, "precision": "fp32"},
    # Nothing is trained.
    "optim": {"image": {"lr": 0.0}, "text": {"lr": 0.0}},
    "phases": [{"samples": 1}],
}

ByResize = dict[str, dict[str, float]]
"""One set's "crop" or "squash" → measure → value."""
Results = dict[str, ByResize]


def evaluate(engine: Any, settings: Config, rank: Rank, device: torch.device) -> dict[str, float]:
    """Everything that [eval] names, as `measure`, under flat names: "SET/crop/accuracy"."""
    results = measure(engine, settings, rank, device)
    return {
        f"{name}/{resize}/{measured}": value
        for name, by_resize in results.items()
        for resize, measures in by_resize.items()
        for measured, value in measures.items()
    }


def measure(engine: Any, settings: Config, rank: Rank, device: torch.device) -> Results:
    """Measure a model on every set that [eval] names; every rank has to call this, and all get the same.

    Args:
        engine: a `ContrastiveModel` or a DeepSpeed engine around one; it is evaluating meanwhile.

    Raises:
        UserError: for a set that cannot be read.
    """
    module = getattr(engine, "module", engine)
    was_training = module.training
    engine.eval()
    encoder = make_encoder(engine, settings, rank, device)
    results: Results = {}
    for name, classes in read_class_sets(settings):
        results[name] = classify(encoder, classes, settings.eval.resize, name)
    for name, clips in read_video_sets(settings):
        results[name] = classify_videos(encoder, clips, settings.eval.resize, name, settings.eval.frames)
    for name, clouds in read_cloud_sets(settings):
        results[name] = classify_clouds(encoder, clouds, settings.eval.resize, name, settings.eval.views)
    for name, file in settings.eval.captions.items():
        results[name] = retrieve(encoder, sources.read_captions(Path(file)), settings.eval.resize, name)
    for name, folder in settings.eval.probes.items():
        probed = probe_features(encoder, *sources.read_probe(Path(folder)), settings.eval.resize, name)
        results[name] = {resize: results.get(name, {}).get(resize, {}) | values for resize, values in probed.items()}
    if settings.eval.retrieval:
        results[PAIRS] = retrieve_pairs(encoder, settings)
    engine.train(was_training)
    for name, by_resize in results.items():
        for resize, measures in by_resize.items():
            told = ", ".join(f"{measured} {value:.4g}" for measured, value in measures.items())
            logger.info("%s (%s): %s", name, resize, told)
    return results


def make_encoder(engine: Any, settings: Config, rank: Rank, device: torch.device) -> Encoder:
    """The encoder of an engine that is evaluating."""
    return Encoder(
        engine,
        rank=rank,
        device=device,
        image_size=getattr(engine, "module", engine).clip.config.vision.image_size,
        batch_size=settings.eval.batch_size,
        num_threads=settings.data.num_workers,
    )


def classify(encoder: Encoder, classes: sources.Classes, resizes: Sequence[str], name: str) -> ByResize:
    """Zero-shot accuracy after each way of resizing, and average precision where a picture may have several classes."""
    rows = encode_classes(encoder, classes.prompts, name)
    features = encoder.encode_images(encoder.share(classes.pictures), resizes, name)
    if classes.label_sets or name in PRECISION_SETS:
        present = mark_present(classes)
        return {resize: _score_presence(encoder, features[resize], classes, present, rows) for resize in resizes}
    return {resize: score_accuracy(encoder, features[resize], classes.labels, rows) for resize in resizes}


def classify_videos(
    encoder: Encoder, found: FrameSet, resizes: Sequence[str], name: str, counts: Sequence[int]
) -> ByResize:
    """Accuracy of the mean of a video's frames, for each number of frames, after each way of resizing."""
    rows = encode_classes(encoder, found.prompts, name)
    features = encoder.encode_frames(encoder.share(found.items), sum(counts), resizes, name, "videos")
    result: ByResize = {resize: {} for resize in resizes}
    for resize in resizes:
        for count, part in zip(counts, features[resize].split(list(counts), dim=1), strict=True):
            told = score_accuracy(encoder, average_frames(part), found.labels, rows, with_top_mean=True)
            result[resize] |= {f"{measured}/{count}_frames": value for measured, value in told.items()}
    return result


def classify_clouds(encoder: Encoder, found: FrameSet, resizes: Sequence[str], name: str, num_views: int) -> ByResize:
    """Accuracy of the mean of an object's views, after each way of resizing."""
    rows = encode_classes(encoder, found.prompts, name)
    features = encoder.encode_frames(encoder.share(found.items), num_views, resizes, name, "point clouds")
    return {
        resize: score_accuracy(encoder, average_frames(views), found.labels, rows) for resize, views in features.items()
    }


def average_frames(frames: Tensor) -> Tensor:
    """Normalised means `[n, d]` of normalised features of frames, `[n, f, d]`."""
    return F.normalize(frames.mean(1), dim=-1)


def encode_classes(encoder: Encoder, wordings: Sequence[Sequence[str]], name: str) -> Tensor:
    """The row of each class, `[c, d]`, on every rank; `wordings` are as many for every class."""
    mine = [prompt for of_class in encoder.share(wordings) for prompt in of_class]
    rows = scores.build_class_rows(encoder.encode_texts(mine, f"{name}: prompts"), len(wordings[0]))
    return encoder.gather_in_order(rows)


def score_accuracy(
    encoder: Encoder, mine: Tensor, labels: Sequence[int], rows: Tensor, *, with_top_mean: bool = False
) -> dict[str, float]:
    """What `scores.describe_hits` tells, from this rank's features and the labels of all ranks' pictures."""
    own = torch.tensor(encoder.share(labels), dtype=torch.int64)
    hits = encoder.gather_in_order(scores.score_classes(mine, own, rows))
    told = scores.describe_hits(torch.tensor(labels), hits, len(rows))
    return told | scores.describe_top_mean(hits) if with_top_mean else told


def mark_present(classes: sources.Classes) -> Tensor:
    """Which classes a picture has, bool `[n, c]`."""
    present = torch.zeros(len(classes.pictures), len(classes.names), dtype=torch.bool)
    for picture, numbers in enumerate(classes.label_sets or [{label} for label in classes.labels]):
        present[picture, list(numbers)] = True
    return present


def _score_presence(
    encoder: Encoder, mine: Tensor, classes: sources.Classes, present: Tensor, rows: Tensor
) -> dict[str, float]:
    if classes.label_sets:
        own = present[encoder.rank.rank :: encoder.rank.world_size]
        hits = encoder.gather_in_order(scores.score_label_sets(mine, own, rows))
        result = scores.describe_hits(None, hits, len(rows))
    else:
        result = score_accuracy(encoder, mine, classes.labels, rows)
    image = encoder.gather_in_order(mine)
    return result | scores.score_precision(image.float() @ rows.T, present)


def probe_features(
    encoder: Encoder, train: sources.Classes, test: sources.Classes, resizes: Sequence[str], name: str
) -> ByResize:
    """Linear probe and nearest neighbours after each way of resizing."""
    gathered = []
    for part, classes in (("train", train), ("test", test)):
        features = encoder.encode_images(encoder.share(classes.pictures), resizes, f"{name}: {part}")
        gathered.append({resize: encoder.gather_in_order(rows) for resize, rows in features.items()})
    labels = [torch.tensor(classes.labels) for classes in (train, test)]
    return {
        resize: probes.probe(gathered[0][resize], labels[0], gathered[1][resize], labels[1], len(train.names))
        for resize in resizes
    }


def retrieve(encoder: Encoder, captions: sources.Captions, resizes: Sequence[str], name: str) -> ByResize:
    """Recall both ways after each way of resizing, with all of a picture's captions."""
    text = encoder.gather_in_order(encoder.encode_texts(encoder.share(captions.texts), f"{name}: captions"))
    features = encoder.encode_images(encoder.share(captions.pictures), resizes, name)
    image_of = torch.tensor(captions.image_of)
    return {
        resize: scores.score_retrieval(encoder.gather_in_order(rows), text, image_of)
        for resize, rows in features.items()
    }


def retrieve_pairs(encoder: Encoder, settings: Config) -> ByResize:
    """Recall on pairs of [data], each picture with its one caption."""
    pictures, captions = sources.read_pairs(settings, encoder.rank)
    text = encoder.gather_rows(encoder.encode_texts(captions, f"{PAIRS}: captions"))
    features = encoder.encode_images(pictures, settings.eval.resize, PAIRS)
    image_of = torch.arange(len(text))
    scale, bias = encoder.read_scale()
    results = {}
    for resize, rows in features.items():
        image = encoder.gather_rows(rows)
        results[resize] = scores.score_retrieval(image, text, image_of)
        if settings.train.batch_size > 1:  # a recipe's, which names the loss too
            results[resize]["loss"] = scores.pairs_loss(image, text, scale, bias, settings.train.batch_size)
    return results


def read_class_sets(settings: Config) -> Iterator[tuple[str, sources.Classes]]:
    """The sets to classify by name: those of the paper's table, then those of eval.image_folders. Raises UserError."""
    if settings.eval.paper_sets:
        found = paper_sets.find_sets(Path(settings.eval.paper_sets), settings.eval.paper_names)
        for name, path in found.items():
            if name not in settings.eval.image_folders:
                yield name, paper_sets.read_set(name, path)
    for name, folder in settings.eval.image_folders.items():
        yield name, sources.read_classes(Path(folder), settings.eval.templates)


def read_video_sets(settings: Config) -> Iterator[tuple[str, FrameSet]]:
    """The sets of eval.videos by name. Raises UserError."""
    for name, folder in settings.eval.videos.items():
        yield name, videos.read_videos(name, Path(folder), prompts.VIDEOS, settings.eval.frames)


def read_cloud_sets(settings: Config) -> Iterator[tuple[str, FrameSet]]:
    """The sets of eval.points by name. Raises UserError."""
    for name, folder in settings.eval.points.items():
        yield name, points.read_clouds(name, Path(folder), prompts.POINT_CLOUDS, settings.eval.views)


def _read_all_sets(settings: Config) -> Iterator[tuple[str, sources.Classes | FrameSet]]:
    yield from read_class_sets(settings)
    yield from read_video_sets(settings)
    yield from read_cloud_sets(settings)


def describe_prompts(settings: Config) -> dict[str, str]:
    """Whose templates each set was classified with: "the set's" or "ours"."""
    return {name: "the set's" if one.own_prompts else "ours" for name, one in _read_all_sets(settings)}


def check_sets(settings: Config) -> None:
    """Read what every set consists of, with neither process group nor GPU. Raises UserError."""
    for _ in _read_all_sets(settings):
        pass
    for file in settings.eval.captions.values():
        sources.read_captions(Path(file))
    for folder in settings.eval.probes.values():
        sources.read_probe(Path(folder))
    if settings.eval.retrieval and not settings.data.root:
        raise UserError("eval.retrieval measures pairs of a curated root: name it, as in --set data.root=ROOT.")
    if not settings.eval.names_any:
        raise UserError(
            "There is nothing to measure: name a set, as in --set eval.image_folders.NAME=DIR, "
            "--set eval.captions.NAME=FILE or --set eval.retrieval=true."
        )


def load_frozen_model(settings: Config, device: torch.device) -> Any:
    """The model of [model], filled from model.weights, evaluating; sharded over the ranks at ZeRO stage 3."""
    file = WeightFile(Path(settings.model.weights))
    sharded = settings.zero.stage == 3
    zero_settings = zero.make_frozen_config(settings)
    with zero.shard_while_building(settings, zero_settings) if sharded else torch.device("meta"):
        clip = Clip(_clip_config(settings, file))
    report = weights.fill_model(clip, file, dtype=DTYPES[settings.train.precision])
    logger.info("%s", report)
    module = ContrastiveModel(clip, settings.train).eval().requires_grad_(False)
    return zero.make_frozen_engine(module, zero_settings) if sharded else module.to(device)


def _clip_config(settings: Config, file: WeightFile) -> Any:
    if settings.model.name:
        return models.config(settings.model.sized_name, image_size=settings.model.image_size)
    return weights.infer_config(file).override(image_size=settings.model.image_size)


def run_evaluation(settings: Config, rank: Rank, out: Path | None) -> None:
    """Check, load, measure, and write `out` (folder/evaluation.json by default) on the first rank."""
    check_sets(settings)
    if not settings.model.weights:
        raise UserError("There is nothing to measure: name the checkpoint with --weights FILE.")
    WeightFile(Path(settings.model.weights))
    require_gpu_for_fp16(settings)
    with launch.process_group(rank) as device:
        results = measure(load_frozen_model(settings, device), settings, rank, device)
    if rank.is_first:
        target = out or Path(settings.folder) / "evaluation.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "weights": settings.model.weights,
            "precision": settings.train.precision,
            "templates": describe_prompts(settings),
            "sets": results,
        }
        target.write_text(json.dumps(document, indent=1) + "\n")
        logger.info("wrote %s", target)
        write_out(table.format_results(results))


def read_settings(path: str | None, weights_file: str | None, overrides: Sequence[str]) -> Config:
    """The configuration of a recipe, or without one just what measuring needs. Raises UserError."""
    more = [*overrides, *([f"model.weights={json.dumps(weights_file)}"] if weights_file else [])]
    if path:
        return configuration.load_config(path, more)
    return from_dict(Config, apply_overrides(_NO_RECIPE, more), "the command line")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status, 2 with one sentence for what the user can put right."""
    options = _parse_arguments(argv)
    rank = launch.read_rank()

    def work() -> None:
        if options.table:
            write_out(table.format_results(table.read_results(Path(options.table))))
            return
        settings = read_settings(options.config, options.weights, options.set)
        launch.prepare_environment(rank)
        log_to_stderr(rank)
        run_evaluation(settings, rank, Path(options.out) if options.out else None)

    return run_checked(rank, work)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.evaluate", description="See docs/evaluation.md.")
    parser.add_argument("--config", metavar="FILE", help="a TOML file or a shipped recipe; not needed with --weights")
    parser.add_argument("--weights", metavar="FILE", help="a checkpoint in any layout: model.weights")
    add_shared_arguments(parser)
    parser.add_argument("--out", metavar="FILE", help="where the results go; evaluation.json in the run's folder")
    parser.add_argument("--table", metavar="FILE", help="print a results file and the published figures, and stop")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_program(main)
