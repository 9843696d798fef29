"""What stands in the files of DeepSpeed's checkpoints, read without running code and without DeepSpeed.

Besides tensors and plain values they hold objects of a few classes. Here records take their places; `read_live_file`
makes the real ones, which hold nothing but numbers, for an engine that goes on with them.

Read against deepspeed 0.19.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curation.errors import UserError
from trainer.pickles import StandIn, read_pickle

MASTER = "fp32"
"""Name of the weights beside the optimizer's own names of its moments."""
_SAVED = re.compile(r"zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt$")
_MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_00_model_states\.pt$")


class Address(StandIn):
    """Where a stretch of a parameter stands in a flat partition, in elements."""

    start: int
    numel: int

    def __setstate__(self, state: Any) -> None:
        self.start, self.numel = int(state["start"]), int(state["numel"])


class LossScaleState(StandIn):
    """The numbers of a loss scaler, by their names."""

    numbers: dict[str, float]

    def __setstate__(self, state: Any) -> None:
        self.numbers = {key: value for key, value in state.items() if isinstance(value, int | float)}


_SCALERS = ("LossScaler", "DynamicLossScaler")
_RECORDS: dict[str, type] = {
    "deepspeed.utils.tensor_fragment.fragment_address": Address,
    "deepspeed.runtime.zero.config.ZeroStageEnum": StandIn,
    **{f"deepspeed.runtime.fp16.loss_scaler.{name}": LossScaleState for name in _SCALERS},
}


@dataclass(frozen=True)
class Piece:
    """The elements of one parameter's flat form from `begin` on, as one partition held them.

    `values` has the masters under "fp32" and every moment under its own name, all of one length; `others` what the
    optimizer keeps once a partition, as its count of steps.
    """

    begin: int
    values: dict[str, Tensor]
    others: dict[str, Any]

    @property
    def end(self) -> int:
        """The element after the last."""
        return self.begin + self.values[MASTER].numel()


def read_file(file: Path) -> dict[str, Any]:
    """What DeepSpeed saved in `file`, its objects as records; tensors stay in the file. Raises UserError."""
    saved: dict[str, Any] = read_pickle(file, _RECORDS)
    return saved


def read_live_file(file: Path) -> dict[str, Any]:
    """The same with DeepSpeed's own objects. Raises UserError."""
    from deepspeed.runtime.fp16 import loss_scaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    live = (fragment_address, ZeroStageEnum, *(getattr(loss_scaler, name) for name in _SCALERS))
    others = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in live}
    # An engine may keep what it gets, and the checkpoint is removed some day: nothing stays in the file.
    saved: dict[str, Any] = read_pickle(file, others, is_mapped=False)
    return saved


def read_pieces(checkpoint: Path, stage: int, world_size: int) -> dict[str, list[Piece]]:
    """Parameter's name → its pieces, in their order; the tensors stay in the files until something reads them.

    Raises:
        UserError: when the file of a rank is missing, damaged, or of another kind than DeepSpeed writes.
    """
    if stage == 0:
        return _read_whole_pieces(checkpoint)
    pieces: dict[str, list[Piece]] = defaultdict(list)
    with _one_sentence(checkpoint):
        for rank, saved in enumerate(read_ranks(checkpoint, world_size)):
            cut = _cut_sharded(saved, checkpoint, rank, world_size) if stage == 3 else _cut_flat(saved, pieces)
            for name, piece in cut:
                pieces[name].append(piece)
    return dict(pieces)


def _read_whole_pieces(checkpoint: Path) -> dict[str, list[Piece]]:
    """Each parameter as one piece, from what `MasterWeights` saved at stage 0."""
    with _one_sentence(checkpoint):
        saved = next(_read_models(checkpoint))["optimizer"]
        if "masters" not in saved:
            raise UserError(f"{checkpoint} is of an earlier version at ZeRO stage 0: go on with zero.stage=0.")
        return {
            name: [_make_piece(master.flatten(), _flatten_state(saved["states"][name]), 0, 0, master.numel())]
            for name, master in saved["masters"].items()
        }


def _flatten_state(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.flatten() if isinstance(v, Tensor) and v.dim() else v for k, v in state.items()}


def read_loss_scale(checkpoint: Path, stage: int, world_size: int) -> float | None:
    """The factor of fp16's losses that a checkpoint was saved with, or None where it says none. Raises UserError."""
    with _one_sentence(checkpoint):
        if stage == 0:
            return float(next(_read_models(checkpoint))["optimizer"]["loss_scale"]["value"])
        scaler = next(read_ranks(checkpoint, world_size)).get("loss_scaler")
        return scaler.numbers.get("cur_scale") if isinstance(scaler, LossScaleState) else None


def join_weights(checkpoint: Path, stage: int, world_size: int) -> dict[str, Tensor]:
    """Every parameter whole, by its name: the float32 masters, and frozen parameters as they were saved.

    Raises:
        UserError: as `read_pieces`, or when a parameter is not whole.
    """
    if stage == 0:
        return _read_unsharded(checkpoint)
    pieces = read_pieces(checkpoint, stage, world_size)
    with _one_sentence(checkpoint):
        models = list(_read_models(checkpoint))
        shapes = {name: shape for group in models[0]["param_shapes"] for name, shape in group.items()}
        frozen = _read_frozen(models) if stage == 3 else _read_rest(models[0], shapes)
        return frozen | {name: join_pieces(pieces.get(name, []), shape) for name, shape in shapes.items()}


def _read_unsharded(checkpoint: Path) -> dict[str, Tensor]:
    with _one_sentence(checkpoint):
        saved = next(_read_models(checkpoint))
        return {**saved["module"], **saved["optimizer"].get("masters", {})}


def _read_frozen(models: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Parameters that are not trained, of which each rank's file holds an equal part at stage 3."""
    return {
        name: torch.cat([model["frozen_param_fragments"][name] for model in models])[: shape.numel()].view(shape)
        for name, shape in (models[0]["frozen_param_shapes"] or {}).items()
    }


def _read_rest(model: dict[str, Any], trained: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Parameters that are not trained at stages 1 and 2, where DeepSpeed lists none: what the model holds besides."""
    others = {*trained, *model["buffer_names"]}
    return {name: tensor for name, tensor in model["module"].items() if name not in others}


def join_pieces(pieces: list[Piece], shape: torch.Size, key: str = MASTER) -> Tensor:
    """A master or moment whole, float32. Raises ValueError when a part of it is missing."""
    if not pieces or [piece.begin for piece in pieces] != [0, *(piece.end for piece in pieces[:-1])]:
        raise ValueError("a parameter is not whole")
    return torch.cat([piece.values[key].detach() for piece in pieces]).float().view(shape)


@contextmanager
def _one_sentence(checkpoint: Path) -> Iterator[None]:
    """What a file of another structure than DeepSpeed's leads to, as one UserError."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{checkpoint} is damaged, or no checkpoint that DeepSpeed wrote ({type(error).__name__}: {reason})."
        ) from error


def read_ranks(checkpoint: Path, world_size: int) -> Iterator[dict[str, Any]]:
    """What each rank saved of its optimizer, in the order of ranks."""
    files = {int(match[1]): file for file in checkpoint.iterdir() if (match := _SAVED.search(file.name))}
    missing = next((rank for rank in range(world_size) if rank not in files), None)
    if missing is not None:
        raise UserError(f"{checkpoint} is not whole: the optimizer's file of rank {missing} is missing.")
    for rank in range(world_size):
        yield read_file(files[rank])["optimizer_state_dict"]


def _read_models(checkpoint: Path) -> Iterator[dict[str, Any]]:
    """What each rank saved of the model, in the order of ranks; a single one at stages below 3."""
    files = {int(match[1] or 0): file for file in checkpoint.iterdir() if (match := _MODEL.search(file.name))}
    if not files:
        raise UserError(f"{checkpoint} is not whole: the model's file is missing.")
    for rank in sorted(files):
        yield read_file(files[rank])


def _cut_flat(saved: dict[str, Any], before: dict[str, list[Piece]]) -> Iterator[tuple[str, Piece]]:
    """Pieces of one rank at stages 1 and 2; `before` has those of the ranks below it, which come first."""
    states = saved["base_optimizer_state"]["state"]
    masters = saved["single_partition_of_fp32_groups"]
    for group, addresses in enumerate(saved["param_slice_mappings"]):
        for name, address in addresses.items():
            begin = before[name][-1].end if before.get(name) else 0
            yield name, _make_piece(masters[group], states.get(group, {}), begin, address.start, address.numel)


def _cut_sharded(saved: dict[str, Any], checkpoint: Path, rank: int, world_size: int) -> Iterator[tuple[str, Piece]]:
    """Pieces of one rank at stage 3, where every parameter is cut into equal parts by itself."""
    states, masters = saved["optimizer_state_dict"]["state"], saved["fp32_flat_groups"]
    for group, shapes in enumerate(next(_read_models(checkpoint))["param_shapes"]):
        start = 0
        for name, shape in shapes.items():
            part = math.ceil(shape.numel() / world_size)
            length = min(part, shape.numel() - rank * part)
            if length > 0:
                yield name, _make_piece(masters[group], states.get(group, {}), rank * part, start, length)
            start += part


def _make_piece(master: Tensor, state: dict[str, Any], begin: int, start: int, length: int) -> Piece:
    flat = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.dim()}
    values = {key: value.narrow(0, start, length) for key, value in {MASTER: master, **flat}.items()}
    return Piece(begin, values, {key: value for key, value in state.items() if key not in flat})
