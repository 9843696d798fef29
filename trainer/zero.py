"""DeepSpeed's configuration, derived from ours, and the engine made with it.

deepspeed is imported where it is used: `trainer.launch` must have prepared the environment that it reads on import.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.distributed as dist

from trainer.config import Config
from trainer.optim import bind_to_zero

NEVER = 10**9
"""A number of steps that no run reaches: DeepSpeed's own progress lines stay away."""


def make_zero_config(config: Config, world_size: int, *, on_gpu: bool) -> dict[str, Any]:
    """The dictionary that `deepspeed.initialize` gets; printed at the start of a run.

    Accumulation is ours (`trainer.objectives.contrastive`), so DeepSpeed sees micro-batches and one boundary a step.
    """
    micro = config.train.batch_size // (world_size * config.train.num_micro_batches(world_size))
    precision = config.train.precision
    result: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": 1,
        "train_batch_size": micro * world_size,
        "gradient_clipping": config.optim.gradient_clip,
        "steps_per_print": NEVER,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "zero_optimization": _zero_section(config, on_gpu=on_gpu),
    }
    if config.zero.gradients == "fp32" and precision != "fp32":
        result["data_types"] = {"grad_accum_dtype": "fp32"}
    return _merge(result, config.zero.extra)


def _zero_section(config: Config, *, on_gpu: bool) -> dict[str, Any]:
    zero = config.zero
    section: dict[str, Any] = {
        "stage": zero.stage,
        "overlap_comm": zero.overlap_comm and on_gpu,
        "contiguous_gradients": True,
        "reduce_bucket_size": zero.bucket_size,
    }
    if zero.stage < 3:
        section["allgather_bucket_size"] = zero.bucket_size
    else:
        section["stage3_prefetch_bucket_size"] = zero.bucket_size
        section["stage3_gather_16bit_weights_on_model_save"] = False
    if zero.offload_optimizer:
        section["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    if zero.offload_parameters:
        section["offload_param"] = {"device": "cpu", "pin_memory": on_gpu}
    return section


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merge(result[key], value) if both else value
    return result


def shard_while_building(config: Config, settings: dict[str, Any]) -> AbstractContextManager[Any]:
    """A context in which modules are sharded over the ranks as they are made: `deepspeed.zero.Init` at stage 3."""
    if config.zero.stage < 3:
        return nullcontext()
    import deepspeed

    sharding: AbstractContextManager[Any] = deepspeed.zero.Init(config_dict_or_path=settings)
    return sharding


def make_engine(module: Any, optimizer: Any, settings: dict[str, Any]) -> Any:
    """The DeepSpeed engine of `module`, with our optimizers told how their parameters were cut up."""
    import deepspeed

    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings)
    bind_to_zero(engine)
    if settings["zero_optimization"]["stage"] == 0 and dist.get_world_size() == 1:
        # Alone there is nothing to reduce, for which DeepSpeed would copy every gradient out and back.
        engine.enable_backward_allreduce = False
    return engine


def make_frozen_config(config: Config) -> dict[str, Any]:
    """DeepSpeed's configuration of a model that only runs forward at ZeRO stage 3: a teacher, or one to evaluate."""
    precision = config.train.precision
    return {
        "train_micro_batch_size_per_gpu": 1,
        "steps_per_print": NEVER,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "zero_optimization": {"stage": 3, "stage3_prefetch_bucket_size": config.zero.bucket_size},
    }


def make_frozen_engine(module: Any, settings: dict[str, Any]) -> Any:
    """An engine without an optimizer, which gathers the sharded parameters of `module` around its forward."""
    import deepspeed

    engine, *_ = deepspeed.initialize(model=module, config=settings)
    engine.eval()  # DeepSpeed's returns nothing
    return engine
