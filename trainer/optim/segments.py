"""Where ZeRO put each parameter: read from a DeepSpeed engine, for an optimizer that needs whole-tensor norms.

Read against deepspeed 0.19: stages 1 and 2 (and the bf16 optimizer) link every parameter to its stretch of the
rank's fp32 partition as `_hp_mapping`; stage 3 keeps (sub-group, offset, length) in `grad_position`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.optim.lamb import Segments


def zero_segments(engine: Any) -> dict[Tensor, Segments]:
    """Segments of every flat fp32 partition that the engine's optimizer updates; empty where nothing is flattened."""
    wrapper = engine.optimizer
    if hasattr(wrapper, "fp32_partitioned_groups_flat"):
        return _stage3_segments(wrapper)
    if hasattr(wrapper, "single_partition_of_fp32_groups"):
        return _linked_segments(wrapper.single_partition_of_fp32_groups, wrapper.bit16_groups, wrapper)
    if hasattr(wrapper, "fp32_groups_flat_partition"):
        return _linked_segments(wrapper.fp32_groups_flat_partition, wrapper.bf16_groups, wrapper)
    return {}


def _linked_segments(
    partitions: list[Tensor], groups: list[list[torch.nn.Parameter]], wrapper: Any
) -> dict[Tensor, Segments]:
    found = {}
    for partition, parameters, process_group in zip(partitions, groups, wrapper.real_dp_process_group, strict=True):
        links = [(index, vars(parameter)["_hp_mapping"]) for index, parameter in enumerate(parameters)]
        addresses = [(index, link.get_hp_fragment_address()) for index, link in links if link is not None]
        spans = tuple((address.start, address.numel, index) for index, address in addresses)
        found[partition] = Segments(spans, len(parameters), process_group)
    return found


def _stage3_segments(wrapper: Any) -> dict[Tensor, Segments]:
    found = {}
    for sub_group, (partition, parameters) in enumerate(
        zip(wrapper.fp32_partitioned_groups_flat, wrapper.fp16_groups, strict=True)
    ):
        process_group = wrapper.sub_group_process_groups[sub_group]
        rank = dist.get_rank(process_group)
        spans = []
        for index, parameter in enumerate(parameters):
            _, start, length = wrapper.grad_position[wrapper.get_param_id(parameter)]
            # The tail of a parameter's last part is padding that ZeRO leaves uninitialised.
            real = min(length, parameter.ds_numel - rank * length)
            if real > 0:
                spans.append((start, real, index))
        found[partition] = Segments(tuple(spans), len(parameters), process_group)
    return found
