"""Write a model as safetensors in any layout, from weights in any layout or from a checkpoint in the midst of a run.

python -m trainer.export runs/l/checkpoints/step-00001000 l.safetensors
python -m trainer.export EVA02_CLIP_L_psz14_s4B.pt FOLDER --layout open_clip --dtype fp16

A folder gets the weights and the configuration file by which open_clip, timm or transformers load them as they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from curation.command import run_guarded, run_program
from curation.errors import UserError
from curation.terminal import write_out
from trainer import checkpoint, layouts, models, weights
from trainer.export_configs import describe_for
from trainer.models.config import ClipConfig
from trainer.objectives.contrastive import strip_prefix
from trainer.precision import DTYPES
from trainer.weight_files import WeightFile
from trainer.zero_files import join_weights

_TOWER_LAYOUTS = ("native", "mim", "timm")
_FILE_NAMES = {"open_clip": "open_clip_model.safetensors"}
"""Layout → name of the weights in a folder; model.safetensors in the others."""
_LOADED_NAMES = ("model.safetensors", "open_clip_model.safetensors")
"""Files that a library finds by their folder, so a configuration beside them is theirs."""


def read_source(source: Path, name: str | None) -> tuple[dict[str, Tensor], ClipConfig]:
    """Our tensors, of a `Clip` or a `MaskedImageModel`, and their model.

    Args:
        source: a checkpoint of a run, whose ZeRO partitions are joined to fp32, or weights in any layout.
        name: the model of weights whose shapes alone should not decide.

    Raises:
        UserError: when `source` is neither.
    """
    if not (source / checkpoint.META).exists():
        model, file = models.load(source, name), WeightFile(source)
        bias = {weights.LOGIT_BIAS: file.tensor(weights.LOGIT_BIAS)} if weights.LOGIT_BIAS in file.shapes else {}
        return dict(model.state_dict()) | bias, model.config
    progress = checkpoint.read_progress(source)
    tensors = join_weights(source, progress.zero_stage, progress.world_size)
    return strip_prefix(tensors), models.config(progress.model, image_size=progress.image_size or None)


def export_model(source: Path, target: Path, *, layout: str | None, dtype: str, name: str | None = None) -> str:
    """Write `target`, or into it where it is no name of a .safetensors file but of a folder.

    Returns what was written, in a line. Raises UserError.
    """
    tensors, config = read_source(source, name)
    is_clip = any(key.startswith("text.") for key in tensors)
    chosen = layout or ("native" if is_clip else "mim")
    if not is_clip and chosen not in _TOWER_LAYOUTS:
        raise UserError(
            f"{source} is a pre-trained image tower, which {chosen} has no place for; use {', '.join(_TOWER_LAYOUTS)}."
        )
    if not is_clip and chosen == "timm":
        tensors = {key: tensor for key, tensor in tensors.items() if key.startswith("visual.")}
    cast = {key: tensor.to(DTYPES[dtype]) for key, tensor in tensors.items()}
    file = target if target.suffix == ".safetensors" else target / _FILE_NAMES.get(chosen, "model.safetensors")
    _make_folder(file.parent)
    weights.write_tensors(weights.export_state(cast, config, chosen), config, file)
    bias = tensors.get(weights.LOGIT_BIAS)
    beside = _write_config(file, chosen, config, None if bias is None else bias.item())
    count = sum(tensor.numel() for tensor in tensors.values())
    return f"wrote {file}: {count:,} parameters, {chosen} layout, {dtype}{beside}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made a folder to write to ({error}): name another target.") from error


def _write_config(file: Path, layout: str, config: ClipConfig, logit_bias: float | None) -> str:
    """Write the file that a library looks for beside `file`; what was done, as the end of a sentence."""
    if file.name not in _LOADED_NAMES:
        return ""
    described = describe_for(layout, config, logit_bias)
    if described is None:
        is_foreign = layout in ("open_clip", "timm", "huggingface")
        return f"; {layout} has no configuration for this model, so none stands beside it" if is_foreign else ""
    name, content = described
    (file.parent / name).write_text(json.dumps(content, indent=2) + "\n")
    return f", with {name}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status, 2 with one sentence for what the user can put right."""
    parser = argparse.ArgumentParser(prog="python -m trainer.export", description="See docs/models.md.")
    parser.add_argument("source", type=Path, help="weights in any layout, or a run's step-… checkpoint")
    parser.add_argument("target", type=Path, help="the .safetensors file to write, or a folder")
    parser.add_argument("--layout", choices=list(layouts.LAYOUTS), help="native, or mim for a pre-trained tower")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    parser.add_argument("--name", help="the model, where shapes alone should not decide")
    options: Any = parser.parse_args(argv)

    def work() -> None:
        told = export_model(
            options.source, options.target, layout=options.layout, dtype=options.dtype, name=options.name
        )
        write_out(f"{told}\n")

    return run_guarded(work)


if __name__ == "__main__":
    run_program(main)
