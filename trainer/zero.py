"""DeepSpeed's configuration, derived from ours, and the engine made with it.

deepspeed is imported where it is used: `trainer.launch` must have prepared the environment that it reads on import.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from trainer.config import Config
from trainer.optim import bind_to_zero, step_at_once

NEVER = 10**9
"""A number of steps that no run reaches: DeepSpeed's own progress lines stay away."""


def make_zero_config(config: Config, world_size: int, *, on_gpu: bool) -> dict[str, Any]:
    """The dictionary that `deepspeed.initialize` gets; printed at the start of a run.

    Accumulation is ours (`trainer.objectives.contrastive`), so DeepSpeed sees micro-batches and one boundary a step.
    """
    micro = config.train.batch_size // (world_size * config.num_micro_batches(world_size, config.phases[0]))
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

    if settings["zero_optimization"]["stage"] == 0:
        return _make_unsharded_engine(module, optimizer, settings)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings)
    bind_to_zero(engine)
    step_at_once(engine)
    return engine


def _make_unsharded_engine(module: Any, optimizer: Any, settings: dict[str, Any]) -> Any:
    """An engine whose precision, gradients over the ranks, clipping and masters are `MasterWeights`' and ours.

    DeepSpeed takes it for a float32 model with an optimizer of its own.
    """
    import deepspeed

    from trainer.optim.masters import LossScale, MasterWeights
    from trainer.precision import DTYPES

    precision = next((name for name in ("bf16", "fp16") if settings.get(name, {}).get("enabled")), "fp32")
    scale = _make_loss_scale(settings["fp16"]) if precision == "fp16" else LossScale()
    masters = MasterWeights(optimizer, DTYPES[precision], settings["gradient_clipping"], scale)
    plain = settings | {"bf16": {"enabled": False}, "fp16": {"enabled": False}, "gradient_clipping": 0.0}
    engine, *_ = deepspeed.initialize(model=module, optimizer=lambda _: masters, config=plain)
    masters.attach(engine.module)
    engine.enable_backward_allreduce = False
    engine.backward = masters.scale(engine.backward)
    return engine


def _make_loss_scale(fp16: Mapping[str, Any]) -> Any:
    """The loss scale by DeepSpeed's settings of fp16, with its defaults."""
    from trainer.optim.masters import LossScale

    if fp16.get("loss_scale"):
        return LossScale(fp16["loss_scale"])
    lowest = fp16.get("min_loss_scale", 1)
    return LossScale(2.0 ** fp16.get("initial_scale_power", 16), fp16.get("loss_scale_window", 1000), lowest)


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
