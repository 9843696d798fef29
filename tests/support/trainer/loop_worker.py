"""Loops over every ZeRO stage and precision in one process, with a backward pass that goes wrong on purpose."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.support.trainer.toy import configuration, prepare_loaders, records
from trainer import checkpoint, launch, optim
from trainer.config import Config, PhaseConfig
from trainer.launch import Rank, read_rank
from trainer.models.position import resize_position_embedding
from trainer.partitions import gather_moment

POISONED_STEP = 2
BOUND = 0.02
GROUPS: list[Any] = []


class Poisoned:
    """A DeepSpeed engine whose loss also pushes the temperature down, and whose gradient is NaN when asked for."""

    def __init__(self, engine: Any, poison: bool) -> None:
        self.engine, self.poison = engine, poison

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def __call__(self, *inputs: Any) -> Any:
        """Forward, remembering the temperature."""
        self.outputs = self.engine(*inputs)
        return self.outputs

    def backward(self, loss: torch.Tensor) -> None:
        """The loss is sound, its gradient is not."""
        loss = loss - 500 * self.outputs.scale.log().sum()
        self.engine.backward(loss * float("nan") if self.poison else loss)


def _make_loop(settings: Config, rank: Rank, device: torch.device) -> Any:
    """A contrastive loop over the toy's loaders; DeepSpeed is imported first here, after the group stands."""
    from trainer.loop import Loop
    from trainer.objectives.contrastive import Contrastive

    loaders = prepare_loaders(settings, rank)
    return Loop(settings, Contrastive(settings), loaders, rank=rank, device=device, resume=None)


def _close(loop: Any) -> None:
    loop.close()
    loop.engine.destroy()


def every_stage(folder: str) -> None:
    """The poisoned step is left out and counted, the next ones train, and the temperature stays above its bound."""
    from trainer.loop import Loop
    from trainer.objectives.contrastive import Contrastive

    class Objective(Contrastive):
        def step(self, engine: Any, *arguments: Any) -> Any:
            return super().step(Poisoned(engine, loop.step + 1 == POISONED_STEP), *arguments)

    rank = read_rank()
    launch.prepare_environment(rank)
    with launch.process_group(rank) as device:
        for stage, precision in itertools.product(range(4), ("fp32", "bf16")):
            here = Path(folder, f"{stage}-{precision}")
            wanted = [f"zero.stage={stage}", f"train.precision={precision}", f"train.min_temperature={BOUND}"]
            settings = configuration(here, [*wanted, "train.initial_temperature=0.021", "optim.scale_lr=0.3"])
            loop = Loop(
                settings, Objective(settings), prepare_loaders(settings, rank), rank=rank, device=device, resume=None
            )
            loop.run()
            _check(here, loop)
            _close(loop)


def change_resolution(folder: str) -> None:
    """A new resolution keeps every master to the last bit, and leaves no file behind."""
    rank = read_rank()
    launch.prepare_environment(rank)
    with launch.process_group(rank) as device:
        for stage in range(4):
            here = Path(folder, str(stage))
            wanted = [f"zero.stage={stage}", "train.precision=bf16", "train.loss=siglip", "optim.scale_lr=0.1"]
            wanted += ["phases.0.samples=32", "checkpoint.export_dtype=bf16"]
            settings = configuration(here, wanted)
            loop = _make_loop(settings, rank, device)
            loop.run()
            before = checkpoint.gather_weights(loop.engine, "fp32")
            loop._set_resolution(PhaseConfig(samples=16, image_size=32))
            after = checkpoint.gather_weights(loop.engine, "fp32")
            if rank.is_first:
                _compare_resolutions(before, after, f"stage {stage}")
                assert not list(here.rglob("*.safetensors"))
            _close(loop)


def learn_temperature(folder: str) -> None:
    """A temperature whose steps are far below what bf16 can hold moves at every step, at every stage."""
    rank = read_rank()
    launch.prepare_environment(rank)
    with launch.process_group(rank) as device:
        for stage in range(4):
            here = Path(folder, str(stage))
            settings = configuration(here, [f"zero.stage={stage}", "train.precision=bf16", "optim.scale_lr=1e-3"])
            loop = _make_loop(settings, rank, device)
            loop.run()
            temperatures = [record["temperature"] for record in records(here).values()]
            moves = [abs(after / before - 1) for before, after in itertools.pairwise(temperatures)]
            assert all(0 < move < 2e-3 for move in moves), (stage, temperatures)
            _close(loop)


def average(folder: str) -> None:
    """The average is that of the masters after every step, is exported beside them, and can be taken over."""
    for loop, rank in _loops(folder, ["train.ema_decay=0.4"], range(4)):
        wanted: list[dict[str, torch.Tensor]] = []

        def note(self: Any = loop, seen: Any = wanted, follow: Any = loop.objective.follow_masters) -> None:
            follow(self.engine)
            weights = checkpoint.gather_weights(self.engine, "fp32")
            decay = min(0.4, (1 + len(seen)) / (10 + len(seen)))
            old = seen[-1] if seen else weights
            seen.append({name: decay * old[name] + (1 - decay) * tensor for name, tensor in weights.items()})

        loop.objective.follow_masters = lambda _, note=note: note()
        loop.run()
        paths = loop.export_weights()
        found = gather_moment(loop.engine, "ema")
        loop.objective.follow_masters = lambda _: None
        loop.take_weights(paths["ema/"])
        taken = checkpoint.gather_weights(loop.engine, "fp32")
        if rank.is_first:
            assert len(wanted) == 6 and found.keys() == wanted[-1].keys()
            for name, tensor in wanted[-1].items():
                torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=f"{loop.folder}: {name}")
                torch.testing.assert_close(taken[name], found[name], rtol=0, atol=0, msg=f"{loop.folder}: {name}")


def first_update(folder: str) -> None:
    """The first step at stage 0 in bf16 is that of an optimizer that nothing wraps, on the same gradients."""
    for loop, _ in _loops(folder, ["train.precision=bf16", "optim.clip_norm=0"], (0,)):
        engine, objective = loop.engine, loop.objective
        before = checkpoint.gather_weights(engine, "fp32")
        loader = prepare_loaders(loop.config, loop.rank)(loop.config.phases[0])
        engine.train()
        objective.step(engine, [next(iter(loader))], lambda _: None, lambda _: True)
        named = dict(engine.module.named_parameters())
        plain = {name: torch.nn.Parameter(before[name].clone()) for name in named}
        for name, parameter in plain.items():
            parameter.grad = None if named[name].grad is None else named[name].grad.float().reshape(parameter.shape)
        groups = optim.parameter_groups(plain, engine.module.layers(), loop.config.optim)
        torch.optim.AdamW(groups, betas=loop.config.optim.betas, eps=loop.config.optim.eps).step()
        engine.step()
        after = checkpoint.gather_weights(engine, "fp32")
        for name, parameter in plain.items():
            moved, wanted = after[name] - before[name], parameter.detach() - before[name]
            torch.testing.assert_close(moved, wanted, rtol=1e-3, atol=1e-6, msg=name)
        assert max(float((after[name] - before[name]).abs().max()) for name in before) > 5e-4


def measure(folder: str) -> None:
    """Measuring on the way happens where it was asked for, and the run's losses are those of a run without it."""
    phases = "phases=[{samples=48}, {samples=48}]"
    losses: dict[str, list[dict[int, float]]] = {"": [], "eval.every_samples=32": []}
    steps: list[int] = []
    for asked, kept in losses.items():
        sets = [phases, "train.precision=fp32", *([asked] if asked else [])]
        for loop, rank in _loops(f"{folder}/{len(asked)}", sets, (0, 3)):

            def note(_: Config, loop: Any, rank: Rank, prefix: str) -> None:
                engine = loop.engine
                engine.eval()
                with torch.no_grad():
                    features = engine(torch.randn(rank.rank + 1, 3, 64, 64), None).image
                assert features.shape[0] == rank.rank + 1 and not engine.module.training and prefix == ""
                steps.append(loop.step)

            loop.measure = note
            loop.run()
            if rank.is_first:
                kept.append({step: record["loss"] for step, record in records(loop.folder).items()})
    assert steps == [2, 3, 4] * 2, steps
    # Two ranks add up in an order that may change from run to run, by a last digit.
    for plain, measured in zip(*losses.values(), strict=True):
        assert all(math.isclose(plain[step], measured[step], rel_tol=1e-5) for step in range(1, 7)), losses


def lock(folder: str, weights: str) -> None:
    """A locked tower is after training what it was in the file; the other one is not."""
    from safetensors.torch import load_file

    before = load_file(weights)
    for sets in (["model.lock_image=true"], ["model.lock_text=true", "train.micro_batch_size=4"]):
        locked = "visual." if "image" in sets[0] else "text."
        for loop, rank in _loops(f"{folder}/{locked}", [*sets, f"model.weights={weights}"], (0, 1, 3)):
            loop.run()
            after = checkpoint.gather_weights(loop.engine, "fp32")
            if rank.is_first:
                moved = {name for name, tensor in before.items() if not torch.equal(after[f"clip.{name}"], tensor)}
                assert moved and not any(name.startswith(locked) for name in moved), (loop.folder, sorted(moved)[:3])


def _loops(folder: str, sets: list[str], stages: Iterable[int]) -> Iterator[tuple[Any, Rank]]:
    """A fresh loop in float32 at every stage, closed afterwards."""
    rank = read_rank()
    launch.prepare_environment(rank)
    if not torch.distributed.is_initialized():
        enter_group(rank)
    for stage in stages:
        settings = configuration(Path(folder, str(stage)), [f"zero.stage={stage}", *sets])
        loop = _make_loop(settings, rank, torch.device("cpu"))
        yield loop, rank
        _close(loop)


def enter_group(rank: Rank) -> None:
    """Start the process group, which the process's end closes."""
    GROUPS.append(launch.process_group(rank))
    GROUPS[-1].__enter__()


def _compare_resolutions(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], where: str) -> None:
    assert abs(before["logit_bias"].item() + 10) > 0.05, "it was trained"
    name = "clip.visual.pos_embed"
    resized = {**before, name: resize_position_embedding(before[name], 4)}
    assert after.keys() == resized.keys()
    for key, tensor in resized.items():
        torch.testing.assert_close(after[key], tensor, rtol=0, atol=0, msg=f"{where}: {key}")


def _check(folder: Path, loop: Any) -> None:
    steps = records(folder)
    applied = [steps[step]["applied"] for step in sorted(steps)]
    assert applied == [step != POISONED_STEP for step in sorted(steps)], (folder.name, applied)
    assert steps[POISONED_STEP]["grad_norm"] is None and steps[6]["num_skipped"] == 1, folder.name
    temperatures = [steps[step]["temperature"] for step in sorted(steps)]
    assert min(temperatures) > BOUND * (1 - 1e-5), (folder.name, temperatures)
    assert abs(temperatures[-1] / BOUND - 1) < 0.01, (folder.name, temperatures)
    weights = checkpoint.gather_weights(loop.engine, "fp32")
    assert all(bool(weight.isfinite().all()) for weight in weights.values()), folder.name
    # bf16 cannot hold log(50); the fp32 master can, and it is what has to stay at the bound.
    tolerance = 2e-2 if folder.name == "0-bf16" else 1e-5
    assert weights["clip.logit_scale"].item() <= -math.log(BOUND) + tolerance, folder.name
