"""Features of point clouds' views and of their classes' names, for a 3D encoder that learns to meet them.

    python -m trainer.point_features --weights model.safetensors --set eval.points.ModelNet40=DIR --out features
    deepspeed --module trainer.point_features --config eva-clip-18b --weights FILE --set eval.points.shapes=DIR --out F

Uni3D (arXiv 2310.06773, section 3.2) aligns an encoder of points with a CLIP's features of an object's rendered views
and of its text. Each set gets a folder:

    OUT/NAME/image_features.npy    float32 [objects, views, d], normalised
    OUT/NAME/text_features.npy     float32 [classes, d], normalised means over the templates
    OUT/NAME/objects.tsv           object, tab, class; row i is that of image_features
    OUT/NAME/classes.txt           a class a line; line i is row i of text_features

With --layout uni3d the folder has what Uni3D's own training reads beside them (`trainer.uni3d_files`).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from curation.command import run_program
from curation.errors import UserError
from trainer import evaluate, launch, uni3d_files
from trainer.command import add_shared_arguments, log_to_stderr, run_checked
from trainer.config import Config
from trainer.evaluation.encoder import Encoder
from trainer.evaluation.frames import FrameSet
from trainer.launch import Rank
from trainer.weight_files import WeightFile

logger = logging.getLogger("trainer")
RESIZE = "squash"
"""The views are square, so that both ways of resizing are one."""


def write_features(
    engine: Any, settings: Config, rank: Rank, device: Any, out: Path, *, for_uni3d: bool = False
) -> None:
    """Encode every set of eval.points on all ranks, and write its folder on the first one.

    Raises:
        UserError: for a set that cannot be read.
    """
    encoder = evaluate.make_encoder(engine, settings, rank, device)
    for name, clouds in evaluate.read_cloud_sets(settings):
        text = evaluate.encode_classes(encoder, clouds.prompts, name)
        image = _encode_views(encoder, clouds, settings.eval.views, name)
        if rank.is_first:
            _write_set(out / name, clouds, image, text)
            if for_uni3d:
                uni3d_files.write_uni3d(out / name, clouds, image, text)
            logger.info("wrote %s: %d objects, %d views each", out / name, len(image), image.shape[1])


def _encode_views(encoder: Encoder, clouds: FrameSet, num_views: int, name: str) -> Tensor:
    mine = encoder.encode_frames(encoder.share(clouds.items), num_views, (RESIZE,), name, "point clouds")[RESIZE]
    return encoder.gather_in_order(mine)


def _write_set(folder: Path, clouds: FrameSet, image: Tensor, text: Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image_features.npy", image.numpy())
    np.save(folder / "text_features.npy", text.numpy())
    pairs = zip(clouds.items, clouds.labels, strict=True)
    (folder / "objects.tsv").write_text("".join(f"{item.name}\t{clouds.names[label]}\n" for item, label in pairs))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in clouds.names))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status, 2 with one sentence for what the user can put right."""
    options = _parse_arguments(argv)
    rank = launch.read_rank()

    def work() -> None:
        settings = evaluate.read_settings(options.config, options.weights, options.set)
        launch.prepare_environment(rank)
        log_to_stderr(rank)
        if not settings.eval.points:
            raise UserError("There are no point clouds: name a set, as in --set eval.points.NAME=DIR.")
        for_uni3d = options.layout == "uni3d"
        if for_uni3d:
            uni3d_files.check_views(settings.eval.views)
        for _ in evaluate.read_cloud_sets(settings):
            pass
        WeightFile(Path(settings.model.weights))
        with launch.process_group(rank) as device:
            engine = evaluate.load_frozen_model(settings, device)
            write_features(engine, settings, rank, device, Path(options.out), for_uni3d=for_uni3d)

    return run_checked(rank, work)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.point_features", description="See docs/evaluation.md.")
    parser.add_argument("--config", metavar="FILE", help="a TOML file or a shipped recipe; not needed with --weights")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint in any layout")
    add_shared_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    text = "arrays alone, or the files that Uni3D trains on beside them"
    parser.add_argument("--layout", choices=("arrays", "uni3d"), default="arrays", help=text)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_program(main)
