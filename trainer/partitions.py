"""Fill an engine's partitions from what was cut otherwise: for other ranks, another ZeRO stage, or not at all.

A checkpoint holds, for each rank that saved it, flat partitions of masters and moments, and says which stretch of which
parameter stands where. Every rank maps those files into memory and copies the stretches that its own partitions want,
so nothing is converted or written first. DeepSpeed's universal checkpoint, which does that, fails when a partition
holds no parameter (a group of fewer elements than ranks, as a learned temperature is), and knows Adam's moments only.

Read against deepspeed 0.19.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from curation.errors import UserError
from trainer.optim.segments import list_stretches
from trainer.zero_files import MASTER, LossScaleState, Piece, join_pieces, read_loss_scale, read_pieces, read_ranks


def restore_partitions(engine: Any, checkpoint: Path, stage: int, world_size: int) -> None:
    """Fill masters, moments, weights and loss scale from what `world_size` ranks saved at `stage`.

    Every rank calls this. Parameters that are not trained stay as they were built.

    Raises:
        UserError: when a file is missing, or a parameter of the engine is in none.
    """
    wrapper, pieces = engine.optimizer, read_pieces(checkpoint, stage, world_size)
    if hasattr(wrapper, "masters"):
        _restore_unsharded(engine, checkpoint, pieces, read_loss_scale(checkpoint, stage, world_size))
        return
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    everything = [piece for found in pieces.values() for piece in found]
    moments = {key: None for piece in everything for key in piece.values if key != MASTER}
    counts = everything[0].others
    state = engine.basic_optimizer.state
    for partition, stretches in list_stretches(engine):
        state[partition] = {key: torch.zeros_like(partition) for key in moments} | _copy_counts(counts)
        targets = {MASTER: partition.data, **{key: state[partition][key] for key in moments}}
        for stretch in stretches.items:
            name = names[id(stretches.parameters[stretch.index])]
            if name not in pieces:
                raise UserError(f"{checkpoint} is of another model: it has no {name}.")
            for key, target in targets.items():
                _fill(target.narrow(0, stretch.start, stretch.length), stretch.begin, pieces[name], key)
    _spread_weights(wrapper)
    if stage == 0:
        vars(wrapper.loss_scaler)["cur_scale"] = read_loss_scale(checkpoint, stage, world_size)
        return
    _restore_loss_scale(wrapper, next(read_ranks(checkpoint, world_size)))


def _restore_unsharded(engine: Any, checkpoint: Path, pieces: dict[str, list[Piece]], loss_scale: float | None) -> None:
    """Join the pieces of every parameter for an engine at stage 0."""
    shapes = {name: p.shape for name, p in engine.module.named_parameters() if p.requires_grad}
    missing = next((name for name in shapes if name not in pieces), None)
    if missing is not None:
        raise UserError(f"{checkpoint} is of another model: it has no {missing}.")
    engine.optimizer.load_state_dict(
        {
            "loss_scale": {"value": loss_scale or 1.0, "num_good_steps": 0},
            "masters": {name: join_pieces(pieces[name], shape) for name, shape in shapes.items()},
            "states": {name: _join_state(pieces[name], shape) for name, shape in shapes.items()},
        }
    )


def _join_state(pieces: list[Piece], shape: torch.Size) -> dict[str, Any]:
    moments = {key: join_pieces(pieces, shape, key) for key in pieces[0].values if key != MASTER}
    return moments | pieces[0].others


def fill_masters(engine: Any, readers: Mapping[str, Callable[[], Tensor]]) -> None:
    """Fill the masters of a new engine, and the weights by them, in full precision; every rank calls this.

    `readers` gives each parameter whole, by its name.
    """
    if hasattr(engine.optimizer, "masters"):
        for name, master in engine.optimizer.masters().items():
            master.copy_(readers[name]().reshape(master.shape))
        engine.optimizer.copy_to_model()
        return
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    for partition, stretches in list_stretches(engine):
        for item in stretches.items:
            whole = readers[names[id(stretches.parameters[item.index])]]().flatten()
            partition.data.narrow(0, item.start, item.length).copy_(whole.narrow(0, item.begin, item.length))
    _spread_weights(engine.optimizer)


def gather_moment(engine: Any, key: str) -> dict[str, Tensor]:
    """One tensor of the optimizer's state of every trained parameter, whole; on the CPU of every rank, one by one.

    Every rank calls this. A parameter whose state has no such tensor is left out.
    """
    if hasattr(engine.optimizer, "masters"):
        states = engine.optimizer.state_dict()["states"]
        return {name: state[key].cpu().clone() for name, state in states.items() if key in state}
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    result = {}
    for partition, stretches in list_stretches(engine):
        flat = engine.basic_optimizer.state[partition].get(key)
        for index, parameter in enumerate(stretches.parameters if flat is not None else ()):
            shape = getattr(parameter, "ds_shape", parameter.shape)
            whole = torch.zeros(shape.numel(), device=engine.device)
            for item in stretches.items:
                if item.index == index:
                    whole.narrow(0, item.begin, item.length).copy_(flat.narrow(0, item.start, item.length))
            dist.all_reduce(whole, group=stretches.process_group)
            result[names[id(parameter)]] = whole.cpu().view(shape)
    return result


def read_master(engine: Any, name: str, parameter: Tensor) -> Tensor | None:
    """The whole float32 master of a parameter, on every rank, or None where nothing but the parameter is there.

    Every rank calls this.
    """
    if hasattr(engine.optimizer, "masters"):
        whole: dict[str, Tensor] = engine.optimizer.masters()
        return whole.get(name)
    from deepspeed.utils import safe_get_full_fp32_param

    master: Tensor | None = safe_get_full_fp32_param(parameter)
    return master


def _copy_counts(counts: dict[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in counts.items()}


def _fill(target: Tensor, begin: int, pieces: list[Piece], key: str) -> None:
    """Copy the elements from `begin` on, as many as `target` has, out of the pieces that hold them."""
    end = begin + target.numel()
    for piece in pieces:
        first, last = max(begin, piece.begin), min(end, piece.end)
        if first < last:
            values = piece.values[key].narrow(0, first - piece.begin, last - first)
            target.narrow(0, first - begin, last - first).copy_(values)


def _spread_weights(wrapper: Any) -> None:
    """Write the masters into the weights that the model computes with, on all ranks."""
    if hasattr(wrapper, "update_lp_params"):
        wrapper.update_lp_params()
        return
    wrapper.checkpoint_event_prologue()
    for index, master in enumerate(wrapper.fp32_partitioned_groups_flat):
        flat, parts = wrapper.fp16_partitioned_groups_flat[index], wrapper.fp16_partitioned_groups[index]
        flat.data.copy_(master.data)
        for part, values in zip(parts, wrapper.unflatten(flat, parts), strict=True):
            part.data = values.data
    wrapper.checkpoint_event_epilogue()


def _restore_loss_scale(wrapper: Any, saved: dict[str, Any]) -> None:
    if isinstance(saved.get("loss_scaler"), LossScaleState):
        scaler = vars(wrapper.loss_scaler)
        scaler.update({key: value for key, value in saved["loss_scaler"].numbers.items() if key in scaler})
    if "dynamic_loss_scale" in saved and hasattr(wrapper, "dynamic_loss_scale"):
        wrapper.dynamic_loss_scale = bool(saved["dynamic_loss_scale"])
