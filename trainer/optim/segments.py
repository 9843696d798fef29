"""Where ZeRO put each parameter: read from a DeepSpeed engine, for an optimizer that needs whole-tensor norms.

Read against deepspeed 0.19: stages 1 and 2 (and the bf16 optimizer) link every parameter to its stretch of the
rank's fp32 partition as `_hp_mapping`; stage 3 keeps (sub-group, offset, length) in `grad_position`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.optim.lamb import Segments


@dataclass(frozen=True)
class Stretch:
    """`length` elements of parameter `index` of a group, from its element `begin` on, at `start` of a partition."""

    index: int
    begin: int
    start: int
    length: int


@dataclass(frozen=True)
class Stretches:
    """What one flat partition holds of the parameters of its group, which are all listed, in the order of the group."""

    parameters: list[torch.nn.Parameter]
    items: tuple[Stretch, ...]
    process_group: Any


def list_stretches(engine: Any) -> Iterator[tuple[Tensor, Stretches]]:
    """Every flat fp32 partition that the engine's optimizer updates; none where nothing is flattened."""
    wrapper = engine.optimizer
    if hasattr(wrapper, "fp32_partitioned_groups_flat"):
        yield from _list_sharded(wrapper)
    elif hasattr(wrapper, "single_partition_of_fp32_groups"):
        yield from _list_linked(wrapper.single_partition_of_fp32_groups, wrapper.bit16_groups, wrapper)
    elif hasattr(wrapper, "fp32_groups_flat_partition"):
        yield from _list_linked(wrapper.fp32_groups_flat_partition, wrapper.bf16_groups, wrapper)


def zero_segments(engine: Any) -> dict[Tensor, Segments]:
    """Segments of every flat partition, as `Lamb` wants them."""
    return {
        partition: Segments(
            tuple((item.start, item.length, item.index) for item in found.items),
            len(found.parameters),
            found.process_group,
        )
        for partition, found in list_stretches(engine)
    }


def _list_linked(
    partitions: list[Tensor], groups: list[list[torch.nn.Parameter]], wrapper: Any
) -> Iterator[tuple[Tensor, Stretches]]:
    for partition, parameters, process_group in zip(partitions, groups, wrapper.real_dp_process_group, strict=True):
        links = [(index, vars(parameter)["_hp_mapping"]) for index, parameter in enumerate(parameters)]
        items = tuple(
            Stretch(
                index, link.lp_fragment_address.start, link.hp_fragment_address.start, link.hp_fragment_address.numel
            )
            for index, link in links
            if link is not None
        )
        yield partition, Stretches(parameters, items, process_group)


def _list_sharded(wrapper: Any) -> Iterator[tuple[Tensor, Stretches]]:
    for sub_group, (partition, parameters) in enumerate(
        zip(wrapper.fp32_partitioned_groups_flat, wrapper.fp16_groups, strict=True)
    ):
        process_group = wrapper.sub_group_process_groups[sub_group]
        rank = dist.get_rank(process_group)
        items = []
        for index, parameter in enumerate(parameters):
            _, start, length = wrapper.grad_position[wrapper.get_param_id(parameter)]
            # The tail of a parameter's last part is padding that ZeRO leaves uninitialised.
            real = min(length, parameter.ds_numel - rank * length)
            if real > 0:
                items.append(Stretch(index, rank * length, start, real))
        yield partition, Stretches(parameters, tuple(items), process_group)
