"""Save checkpoints at one number of ranks, restore them at another, and compare every tensor of the training state."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch

from tests.support.trainer.toy import ToyLoader, configuration
from trainer import checkpoint, launch, optim, zero
from trainer.checkpoint import Checkpoints, Progress
from trainer.config import Config
from trainer.launch import Rank, read_rank
from trainer.optim.segments import list_stretches
from trainer.partitions import gather_moment, read_master

BATCH = 12
MOMENTS = ("exp_avg", "exp_avg_sq")
TEMPERATURES = {"learned": "train.initial_temperature=0.05", "fixed": "train.temperature=0.05"}


def save(folder: str, stages: list[int], optimizers: list[str], temperatures: list[str], precision: str) -> None:
    """A checkpoint of each kind after two steps, and beside it the whole state as DeepSpeed's own functions see it."""
    rank = _begin()
    with launch.process_group(rank):
        for stage, name, temperature in itertools.product(stages, optimizers, temperatures):
            settings = _configure(folder, stage, name, temperature, precision)
            objective, engine = _build(settings, rank)
            for _ in range(2):
                _train_step(objective, engine, rank)
            place = Path(folder, f"{name}-{temperature}-stage-{stage}-ranks-{rank.world_size}")
            Checkpoints(place, settings.checkpoint, rank=rank.rank, local_rank=rank.local_rank).save(
                engine, _describe(settings, rank)
            )
            state = _gather_state(engine)
            if rank.is_first:
                torch.save(state, place / "state.pt")
            engine.destroy()


def restore(folder: str, stages: list[int], optimizers: list[str], temperatures: list[str], precision: str) -> None:
    """Restore every checkpoint below `folder` at every stage; the state is equal, and the next step is sound."""
    rank = _begin()
    with launch.process_group(rank):
        for stage, name, temperature in itertools.product(stages, optimizers, temperatures):
            settings = _configure(folder, stage, name, temperature, precision)
            objective, engine = _build(settings, rank)
            places = sorted(Path(folder).glob(f"{name}-{temperature}-stage-*"))
            assert places
            for place in places:
                found = checkpoint.find_newest(place)
                assert found is not None
                progress = checkpoint.read_progress(found)
                alike = checkpoint.is_cut_alike(progress, settings, rank.world_size)
                checkpoint.restore_engine(engine, found, progress, cut_alike=alike)
                _compare(engine, torch.load(place / "state.pt"), f"{place.name} at {stage}")
            _train_step(objective, engine, rank)
            assert all(bool(_read_weight(parameter).isfinite().all()) for parameter in engine.module.parameters())
            engine.destroy()


def cross(folder: str, pairs: list[list[int]], optimizer: str, precision: str) -> None:
    """For each pair of stages: save at the first, restore at the second; masters, moments and next step are equal."""
    rank = _begin()
    with launch.process_group(rank):
        for first, second in pairs:
            before = _configure(folder, first, optimizer, "learned", precision)
            objective, engine = _build(before, rank)
            for _ in range(2):
                _train_step(objective, engine, rank)
            place = Path(folder, f"from-{first}-to-{second}")
            Checkpoints(place, before.checkpoint, rank=rank.rank, local_rank=rank.local_rank).save(
                engine, _describe(before, rank)
            )
            wanted = _gather_whole(engine)
            _train_step(objective, engine, rank)
            wanted_next = _gather_whole(engine)
            engine.destroy()
            after = _configure(folder, second, optimizer, "learned", precision)
            objective, engine = _build(after, rank)
            found = checkpoint.find_newest(place)
            assert found is not None
            progress = checkpoint.read_progress(found)
            alike = checkpoint.is_cut_alike(progress, after, rank.world_size)
            checkpoint.restore_engine(engine, found, progress, cut_alike=alike)
            for key, value in _gather_whole(engine).items():
                _require_equal(value, wanted[key], f"{key} from {first} to {second}")
            _train_step(objective, engine, rank)
            for key, value in _gather_whole(engine).items():
                # Gradients are rounded and added up in another order.
                torch.testing.assert_close(value, wanted_next[key], rtol=0.05, atol=0.02, msg=f"{key}, next step")
            engine.destroy()


def _gather_whole(engine: Any) -> dict[str, torch.Tensor]:
    result = {f"{key} {name}": t for key in MOMENTS for name, t in gather_moment(engine, key).items()}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            master = read_master(engine, name, parameter)
            assert master is not None
            result[f"fp32 {name}"] = master.clone()
    return result


def _begin() -> Rank:
    rank = read_rank()
    launch.prepare_environment(rank)
    return rank


def _configure(folder: str, stage: int, name: str, temperature: str, precision: str) -> Config:
    return configuration(
        Path(folder) / "settings",
        [
            f"zero.stage={stage}",
            f"optim.name={name}",
            TEMPERATURES[temperature],
            f"train.precision={precision}",
            f"train.batch_size={BATCH}",
            "optim.scale_lr=0.02",
            "zero.extra.zero_optimization.stage3_param_persistence_threshold=0",
        ],
    )


def _build(settings: Config, rank: Rank) -> Any:
    from trainer.objectives.contrastive import Contrastive

    objective = Contrastive(settings)
    zero_settings = zero.make_zero_config(settings, rank.world_size, on_gpu=False)
    torch.manual_seed(0)
    with zero.shard_while_building(settings, zero_settings):
        module = objective.build(None, None)
    optimizer = optim.build_optimizer(objective.parameter_groups(module), settings.optim)
    engine = zero.make_engine(module, optimizer, zero_settings)
    engine.train()
    return objective, engine


def _train_step(objective: Any, engine: Any, rank: Rank) -> None:
    loader = ToyLoader(batch_size=BATCH // rank.world_size, image_size=64, seed=0, rank=rank)
    objective.step(engine, [next(iter(loader))], lambda _: None, lambda _: True)
    engine.step()


def _describe(settings: Config, rank: Rank) -> Progress:
    return Progress(
        model="debug", image_size=0, optimizer=settings.optim.name, precision=settings.train.precision,
        zero_stage=settings.zero.stage, world_size=rank.world_size, batch_size=BATCH, seed=0, step=2, phase=0,
    )  # fmt: skip


def _gather_state(engine: Any) -> dict[str, torch.Tensor]:
    """Masters, moments and weights of every trained parameter, whole, on every rank."""
    from deepspeed.utils import safe_get_full_fp32_param

    result = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            result[f"{name} fp32"] = safe_get_full_fp32_param(parameter).clone()
            for key in MOMENTS:
                result |= _gather_moment(engine, parameter, name, key)
            result[f"{name} weight"] = _read_weight(parameter)
    return result


def _gather_moment(engine: Any, parameter: Any, name: str, key: str) -> dict[str, torch.Tensor]:
    if not any(key in state for state in engine.basic_optimizer.state.values()):
        return {}
    if hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_full_optimizer_state

        return {f"{name} {key}": safe_get_full_optimizer_state(parameter, key).clone()}
    whole = torch.zeros(parameter.numel())
    link = parameter._hp_mapping
    if link is not None:
        ours = link.hp_fragment_address
        wrapper = engine.optimizer
        flat = wrapper.single_partition_of_fp32_groups[link.param_group_index]
        values = engine.basic_optimizer.state[flat][key].narrow(0, ours.start, ours.numel)
        whole.narrow(0, link.lp_fragment_address.start, ours.numel).copy_(values)
    torch.distributed.all_reduce(whole)
    return {f"{name} {key}": whole.view(parameter.shape)}


def _read_weight(parameter: Any) -> torch.Tensor:
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
        weight: torch.Tensor = parameter.detach().float().clone()
    return weight


def _compare(engine: Any, wanted: dict[str, torch.Tensor], where: str) -> None:
    """Whole weights, and this rank's stretches of masters and moments: a gathered copy of each would take minutes."""
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    for parameter in engine.module.parameters():
        if parameter.requires_grad:
            _require_equal(_read_weight(parameter), wanted[f"{names[id(parameter)]} weight"], where)
    state = engine.basic_optimizer.state
    for partition, stretches in list_stretches(engine):
        assert {float(state[partition].get("step", 2))} == {2.0}, where
        held = {"fp32": partition, **{key: state[partition][key] for key in MOMENTS if key in state[partition]}}
        for item, (key, flat) in itertools.product(stretches.items, held.items()):
            name = f"{names[id(stretches.parameters[item.index])]} {key}"
            found = flat.narrow(0, item.start, item.length)
            _require_equal(found, wanted[name].flatten().narrow(0, item.begin, item.length), f"{where}: {name}")


def _require_equal(found: torch.Tensor, wanted: torch.Tensor, where: str) -> None:
    torch.testing.assert_close(found.detach(), wanted, rtol=0, atol=0, msg=where)
