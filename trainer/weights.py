"""Weights in and out: any layout of `trainer.layouts` into a model, whole or tower by tower, and safetensors out.

Everything is strict: a tensor that is missing, left over or of another shape is an error that names it, and what was
done comes back as a `Report`. Parameters that ZeRO-3 has sharded are filled one at a time, so no rank holds the model.
"""

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from curation.errors import UserError
from curation.settings import from_dict
from trainer import layouts
from trainer.layouts import Layout, Source
from trainer.models import configs
from trainer.models.clip import Clip
from trainer.models.config import ClipConfig
from trainer.models.mim import MaskedImageModel
from trainer.models.position import resize_position_embedding
from trainer.weight_files import WeightFile

Shape = tuple[int, ...]

# Tables that are computed, and counters, in one release or another: nothing to learn from.
_COMPUTED = re.compile(r"rope|freqs_(cos|sin)|position_ids|attn_mask|relative_position|input_resolution|context_length")
# What other models have and ours fix at zero; accepted only when it is zero.
_ZEROS = re.compile(r"(k_bias|[qkv]_proj\.bias|head\.bias|visual_projection\.bias)$")
# What a pre-trained image tower carries that a CLIP has no use for.
_MIM_ONLY = ("mask_token", "lm_head.weight", "lm_head.bias")
_POSITION = "visual.pos_embed"
LOGIT_BIAS = "logit_bias"
"""SigLIP's bias: no part of a `Clip`, but of the loss that goes on training one (`trainer.objectives`)."""


@dataclass(frozen=True)
class Report:
    """What loading did: `resized` position embeddings, `fresh` parameters left as they were, `ignored` tensors."""

    path: Path
    layout: str
    matched: tuple[str, ...]
    resized: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.path} ({self.layout} layout): {len(self.matched)} parameters matched"]
        for what, names in (("resized", self.resized), ("left fresh", self.fresh), ("ignored", self.ignored)):
            if names:
                parts.append(f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})")
        return ", ".join(parts)


def load_model(path: Path, name: str | None = None, *, dtype: torch.dtype | None = None) -> Clip:
    """Build the model of a CLIP checkpoint and fill it; see `trainer.models.load`."""
    file = WeightFile(path)
    config = configs.config(name) if name else infer_config(file)
    with torch.device("meta"):
        model = Clip(config)
    fill_model(model, file, dtype=dtype)
    return model.eval()


def fill_towers(model: Clip | MaskedImageModel, *, image: Path | None = None, text: Path | None = None) -> list[Report]:
    """Fill the towers of `model` from checkpoints of other models, as EVA-CLIP starts its training.

    The image tower comes from a MIM checkpoint or a CLIP, the text tower from a CLIP; position embeddings are resized,
    and a projection into a space of another width, or of a MIM checkpoint, is left as it was.

    Raises:
        UserError: when a file holds no such tower, or one of another shape.
    """
    reports = []
    for tower, path in (("visual", image), ("text", text)):
        if path is not None:
            reports.append(fill_model(model, WeightFile(path), tower=tower))
    return reports


def fill_model(
    model: Clip | MaskedImageModel,
    file: WeightFile,
    *,
    tower: str = "",
    dtype: torch.dtype | None = None,
    check_only: bool = False,
) -> Report:
    """Copy a checkpoint into `model`, or into its "visual" or "text" tower only.

    Args:
        model: on any device; meta parameters become CPU ones, and parameters sharded by ZeRO-3 stay sharded, in which
            case every rank has to call this.
        dtype: of parameters that were meta, float32 by default; the others keep theirs.
        check_only: raise or report as ever, from names and shapes alone, and read no tensor.

    Raises:
        UserError: naming the first tensor that is missing, left over or of another shape.
    """
    layout = _detect_layout(file)
    parameters = {name: parameter for name, parameter in model.named_parameters() if name.startswith(tower)}
    plan = _plan_pieces(model, layout, parameters)
    fresh = tuple(name for name in plan if tower and _is_foreign_head(name, plan, file))
    set_aside = [part for name in fresh for part in plan.pop(name).source.names]
    known = {*set_aside, *(part for piece in plan.values() for part in piece.source.names)}
    prefix = {"": "", "visual": layout.visual_prefix, "text": layout.text_prefix}[tower]
    left_over = [name for name in file.shapes if name not in known and name.startswith(prefix)]
    ignored = [*(name for name in set_aside if name in file.shapes), *left_over]
    _require_known(left_over, file)
    _require_present(plan, file)
    resized = _require_shapes(plan, file)
    for name, piece in plan.items() if not check_only else ():
        _assign(model, name, parameters[name], partial(piece.read, file), dtype or torch.float32)
    return Report(file.path, layout.name, tuple(plan), resized, fresh, tuple(ignored))


def list_readers(model: Clip | MaskedImageModel, file: WeightFile) -> dict[str, Callable[[], Tensor]]:
    """How to read every parameter of `model` whole, in the file's own precision; a position embedding is resized."""
    plan = _plan_pieces(model, _detect_layout(file), dict(model.named_parameters()))
    return {name: partial(piece.read, file) for name, piece in plan.items()}


def _plan_pieces(
    model: Clip | MaskedImageModel, layout: Layout, parameters: Mapping[str, nn.Parameter]
) -> dict[str, "_Piece"]:
    return {
        name: _Piece(layout.source(name, model.config.vision), _whole_shape(parameter))
        for name, parameter in parameters.items()
    }


def export_state(state: Mapping[str, Tensor], config: ClipConfig, layout: str = "native") -> dict[str, Tensor]:
    """Rename and split our tensors for another layout; what a layout has no place for is left out.

    Args:
        state: a `state_dict` of `Clip`, perhaps with SigLIP's bias, or of `MaskedImageModel` for "mim".
        layout: one of `trainer.layouts.LAYOUTS`; "mim" and "timm" hold the image tower only.

    Raises:
        UserError: for an unknown layout.
    """
    target = layouts.LAYOUTS.get(layout)
    if target is None:
        raise UserError(f"There is no layout {layout!r}; the layouts are {', '.join(layouts.LAYOUTS)}.")
    only_image = target.visual_prefix == ""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if only_image and not name.startswith(("visual.", *_MIM_ONLY)):
            continue
        if name == LOGIT_BIAS and not target.has_logit_bias:
            continue
        source = target.source(name, config.vision)
        tensor = tensor.squeeze() if source.squeeze else tensor
        tensor = tensor.T if source.transpose else tensor
        out |= dict(zip(source.names, tensor.chunk(len(source.names)) if tensor.dim() else (tensor,), strict=True))
    if target.zero_head_bias and not config.vision.bias:
        out[f"{target.visual_prefix}head.bias"] = torch.zeros(config.embed_dim, dtype=state["visual.head.weight"].dtype)
    return out


def save_model(model: Clip | MaskedImageModel, path: Path, layout: str = "native") -> None:
    """Write a model as one safetensors file, under its final name only when whole.

    The configuration goes into the header, so `load_model` rebuilds models with overridden sizes too.

    Raises:
        UserError: for an unknown layout.
    """
    tensors = export_state(model.state_dict(), model.config, layout)
    write_tensors(tensors, model.config, path)


def write_tensors(tensors: Mapping[str, Tensor], config: ClipConfig, path: Path) -> None:
    """Write tensors of any layout with the model's configuration in the header, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    header = {"format": "pt", "clip_config": json.dumps(dataclasses.asdict(config))}
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(temporary), metadata=header)
        _order_header(temporary)
        temporary.chmod(mode)  # safetensors makes a file for its owner alone, whatever the umask says
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _order_header(path: Path) -> None:
    """Sort the metadata of a safetensors file, which the library writes in another order each time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        told = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(told.ljust(length))


def write_outline(tensors: Mapping[str, Tensor], config: ClipConfig, path: Path) -> None:
    """Write the safetensors file that `write_tensors` would, in float32 and with a hole in place of the values.

    A stage that is still to be trained is checked with it: whatever reads names and shapes reads it as the real file.
    """
    header: dict[str, Any] = {"__metadata__": {"clip_config": json.dumps(dataclasses.asdict(config))}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    with path.open("wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        file.truncate(8 + len(told) + end)


@dataclass(frozen=True)
class _Piece:
    """One of our parameters: where the checkpoint keeps it and the shape it has to get."""

    source: Source
    shape: Shape

    @property
    def part_shape(self) -> Shape:
        """Shape of each part in the checkpoint, up to axes of length 1."""
        shape = self.shape[::-1] if self.source.transpose else self.shape
        return (shape[0] // len(self.source.names), *shape[1:])

    def misfit(self, file: WeightFile) -> str | None:
        """The first part that the checkpoint lacks or has in another shape."""
        wanted = _drop_axes_of_one(self.part_shape)
        return next(
            (name for name in self.source.names if _drop_axes_of_one(file.shapes.get(name, (0,))) != wanted), None
        )

    def read(self, file: WeightFile) -> Tensor:
        """Read and join the parts, resizing a position embedding that is of another grid."""
        parts = [file.tensor(name) for name in self.source.names]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        whole = whole.T if self.source.transpose else whole
        if whole.numel() != torch.Size(self.shape).numel():
            return resize_position_embedding(whole.reshape(1, -1, self.shape[-1]), self.shape[1] - 1)
        return whole.reshape(self.shape)


def _drop_axes_of_one(shape: Iterable[int]) -> Shape:
    return tuple(length for length in shape if length != 1)


def _whole_shape(parameter: nn.Parameter) -> Shape:
    # ZeRO-3 leaves a sharded parameter empty and keeps its real shape here.
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _detect_layout(file: WeightFile) -> Layout:
    layout = layouts.detect_layout(file.shapes)
    if layout is None:
        raise UserError(
            f"{file.path} is no EVA-CLIP or EVA checkpoint: names like {next(iter(file.shapes))!r} are in none of the "
            f"layouts {', '.join(layouts.LAYOUTS)}."
        )
    return layout


def _is_foreign_head(name: str, plan: Mapping[str, _Piece], file: WeightFile) -> bool:
    """Whether a projection has no counterpart: a MIM tower has none, and another CLIP's may be of another width."""
    tower, _, rest = name.partition(".")
    if not rest.startswith("head."):
        return False
    return "mask_token" in file.shapes or plan[f"{tower}.head.weight"].misfit(file) is not None


def _require_known(names: list[str], file: WeightFile) -> None:
    unknown = [name for name in names if name not in (*_MIM_ONLY, LOGIT_BIAS) and not _COMPUTED.search(name)]
    unknown = [name for name in unknown if not (_ZEROS.search(name) and not file.tensor(name).any())]
    if unknown:
        raise UserError(f"{file.path} is of another model: this one has no {_name_first(unknown)}.")


def _require_present(plan: Mapping[str, _Piece], file: WeightFile) -> None:
    missing = [name for piece in plan.values() for name in piece.source.names if name not in file.shapes]
    if missing:
        raise UserError(f"{file.path} is of another model, or not whole: it has no {_name_first(missing)}.")


def _require_shapes(plan: Mapping[str, _Piece], file: WeightFile) -> tuple[str, ...]:
    """The position embeddings to resize; an error for any other difference."""
    resized = []
    for name, piece in plan.items():
        part = piece.misfit(file)
        if part is None:
            continue
        theirs, ours = file.shapes[part], piece.part_shape
        if name != _POSITION or theirs[-1] != ours[-1] or math.isqrt(theirs[-2] - 1) ** 2 != theirs[-2] - 1:
            raise UserError(f"{file.path} is of another model: {part} is {list(theirs)}, and has to be {list(ours)}.")
        resized.append(name)
    return tuple(resized)


def _name_first(names: list[str]) -> str:
    return names[0] + (f" (nor {len(names) - 1} more)" if len(names) > 1 else "")


def _assign(
    model: nn.Module, name: str, parameter: nn.Parameter, read: Callable[[], Tensor], dtype: torch.dtype
) -> None:
    if parameter.is_meta:
        module, _, leaf = name.rpartition(".")
        value = read().to(dtype, copy=True).contiguous()
        setattr(model.get_submodule(module), leaf, nn.Parameter(value, requires_grad=parameter.requires_grad))
        return
    with torch.no_grad():
        if hasattr(parameter, "ds_id"):
            import deepspeed  # only where it has sharded the parameters

            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                if torch.distributed.get_rank() == 0:
                    parameter.copy_(read())
        else:
            parameter.copy_(read())


def infer_config(file: WeightFile) -> ClipConfig:
    """The configuration in a header of ours, else that of the one model whose widths and depths the file has.

    Raises:
        UserError: when the header is damaged or not of these tensors, or no model of the family fits.
    """
    if "clip_config" in file.metadata:
        return _read_header(file)
    layout = _detect_layout(file)
    fitting = [config for config in map(configs.config, configs.names()) if _fits(config, layout, file)]
    if not fitting:
        raise UserError(
            f"{file.path} is no whole CLIP of the family ({', '.join(configs.names())}); one tower alone can start "
            "the training of a model but not be one."
        )
    position = file.shapes[layout.source(_POSITION, fitting[0].vision).names[0]]
    grid = math.isqrt(position[-2] - 1)
    same_grid = [config for config in fitting if config.vision.grid == grid]
    return same_grid[0] if same_grid else fitting[0].override(image_size=grid * fitting[0].vision.patch_size)


def _read_header(file: WeightFile) -> ClipConfig:
    """The configuration in the header, refused before a model is built by it where the tensors are of other sizes."""
    try:
        config = from_dict(ClipConfig, json.loads(file.metadata["clip_config"]), "clip_config")
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(f"The header of {file.path} describes no model ({error}); write the file again.") from error
    layout = _detect_layout(file)
    vision, text = config.vision, config.text
    tables: dict[str, Shape] = {
        _POSITION: (1, vision.num_patches + 1, vision.width),
        "text.token_embedding.weight": (text.vocab_size, text.width),
        "text.positional_embedding": (text.context_length, text.width),
    }
    if not _fits(config, layout, file) or not _have_shapes(tables, config, layout, file):
        raise UserError(
            f"The header of {file.path} describes a model of other sizes than its tensors, or it is one tower alone: "
            "write the file again, or name the model."
        )
    return config


def _have_shapes(shapes: Mapping[str, Shape], config: ClipConfig, layout: Layout, file: WeightFile) -> bool:
    return all(_Piece(layout.source(name, config.vision), shape).misfit(file) is None for name, shape in shapes.items())


def _fits(config: ClipConfig, layout: Layout, file: WeightFile) -> bool:
    vision, text = config.vision, config.text
    shapes: dict[str, Shape] = {
        "visual.patch_embed.weight": (vision.width, 3, vision.patch_size, vision.patch_size),
        f"visual.blocks.{vision.layers - 1}.norm1.weight": (vision.width,),
        "visual.head.weight": (config.embed_dim, vision.width),
        f"text.blocks.{text.layers - 1}.norm1.weight": (text.width,),
        "text.head.weight": (config.embed_dim, text.width),
    }
    deeper = (f"visual.blocks.{vision.layers}.norm1.weight", f"text.blocks.{text.layers}.norm1.weight")
    if any(layout.source(name, vision).names[0] in file.shapes for name in deeper):
        return False
    return _have_shapes(shapes, config, layout, file)
