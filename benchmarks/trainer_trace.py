"""What a training step asks of a GPU, counted without one: operators, reads by the host, sizes of products.

Forward and backward run on the meta device at the models' real sizes, whole, with 64 pairs; the optimizer's step runs
on the CPU on a model of the same depth, tensors and groups whose widths are small. An operator that is no view starts
at least one kernel, so operators are a lower bound of launches, and a close one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from trainer import config, models, optim
from trainer.models.clip import Clip
from trainer.models.config import ClipConfig
from trainer.models.padding import forced
from trainer.models.tracing import OperatorCounter
from trainer.objectives.contrastive import Contrastive
from trainer.objectives.contrastive_model import ContrastiveModel
from trainer.objectives.loss import infonce
from trainer.optim.masters import LossScale, MasterWeights

PAIRS, TOKENS = 64, 32
MODELS = ("eva02-b-16", "eva02-l-14", "eva02-e-14-plus", "eva-clip-8b", "eva-clip-18b")
ATTENTION = 4
"""Kernels of one attention on a GPU: one forward, three backward."""
RECORDED = {"eva02-l-14": 14_156, "eva02-b-16": 9_168, "eva02-e-14-plus": 8_219}
"""Launches of a whole step before, profiled on an H100 (e-14-plus with 16 + 8 blocks)."""
NARROW_SIDE = 112
"""Pixels of the narrow models' pictures: a multiple of all patches."""
DEEPSPEED = {0: (10_867, 566), 1: (14_438, 83), 2: (14_438, 83), 3: (6_251, 1)}
"""Operators and host reads of DeepSpeed 0.19's own step of eva02-l-14 with LAMB, counted like ours; at stage 0 by 19.2
operators and one read a tensor, as profiled on an H100."""
STAGE_NOTES = [
    "The step of trainer.train through DeepSpeed's engine on one CPU rank, with the model's depth, tensors and groups "
    "and small widths, in bf16 with LAMB; attention is one operator forward and one backward. Exchanges between ranks "
    "are added to it: at stages 1 and 2 one gather a group, at stage 1 one scatter of all gradients.",
    "Stages 2 and 3 copy every gradient into a bucket and out of it, as stage 1 does with zero.overlap_comm on a GPU: "
    "these 1,134 copies are in forward and backward. Stage 3 gathers parameters there too.",
]
NOTES = [
    "operators of a step = forward and backward + optimizer; each starts at least one kernel. No GPU was at hand: "
    "nothing here is a time, and small functions are counted uncompiled, as they run where torch.compile does not.",
    "the same recomputing: with model.grad_checkpointing, as the shipped recipes of large models have it.",
    "launches before: one profiled step on an H100 before this work (eva02-e-14-plus there with 16 + 8 blocks). "
    "DeepSpeed's wrapper at stage 0 took 19.2 operators and one host read a tensor of it.",
    "optimizer: of the shipped recipe (LAMB). AdamW is torch's fused kernel, which reads and writes each value once, a "
    "group, and nine more for any number of groups; Lion's are as many for any number of groups.",
    f"attention counts as {ATTENTION} operators a block, forward and backward, as its kernels on a GPU; the meta "
    "device takes it apart.",
    "FLOPs of full tiles: share of the layers' multiplications in products whose three sizes are multiples of 64, with "
    "64 pairs a rank; plain and with padded widths.",
]


def trace_model(name: str) -> dict[str, Any]:
    """One row: a step of the model at ZeRO stage 0 in bf16, with its shipped recipe's optimizer."""
    clip = models.config(name)
    plain, padded = (_count_passes(clip, is_padded) for is_padded in (False, True))
    step, num_tensors, num_groups = _count_update(name, clip)
    others = {f"with {kind}": _count_update(name, clip, kind)[0].total for kind in ("adamw", "lion")}
    spared = _count_spared(clip)
    return {
        "model": name,
        "tensors": num_tensors,
        "groups": num_groups,
        "launches before": RECORDED.get(name),
        "operators": padded.total - spared + step.total,
        "forward and backward": padded.total - spared,
        "the same unpadded": plain.total - spared,
        "the same recomputing": count_recomputing(clip),
        "optimizer": step.total,
        **others,
        "optimizer's host reads": step.host_reads,
        "FLOPs of full tiles, plain": plain.share_of_flops(64),
        "padded": padded.share_of_flops(64),
    }


def count_recomputing(clip: ClipConfig) -> int:
    """Operators of forward and backward, padded, where every block runs forward twice."""
    return _count_passes(clip, padded=True, recompute=True).total - _count_spared(clip, recompute=True)


def _count_spared(clip: ClipConfig, recompute: bool = False) -> int:
    """Operators of all attentions that the meta device takes apart, beyond their kernels on a GPU."""
    forward, backward = _count_attention(clip.vision.heads, clip.vision.head_width, clip.vision.num_patches + 1)
    again = forward - 1 if recompute else 0
    return (clip.vision.layers + clip.text.layers) * (forward + backward - ATTENTION + again)


def _count_attention(heads: int, head_width: int, tokens: int) -> tuple[int, int]:
    """Operators of one attention forward and backward, where it is no kernel of its own: on the meta device."""
    with torch.device("meta"):
        size = (PAIRS, heads, tokens, head_width)
        query, key, value = (torch.empty(size, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        forward, backward = OperatorCounter(), OperatorCounter()
        with forward:
            mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        with backward:
            mixed.backward(torch.empty_like(mixed))
    return forward.total, backward.total


def _count_passes(clip: ClipConfig, padded: bool, recompute: bool = False) -> OperatorCounter:
    side = clip.vision.image_size
    with forced(padded), torch.device("meta"):
        model = Clip(clip).to(torch.bfloat16)
        model.set_grad_checkpointing(recompute)
        pixels = torch.empty(PAIRS, 3, side, side, dtype=torch.bfloat16)
        counter = OperatorCounter()
        with counter:
            image, text, scale = model(pixels, torch.empty(PAIRS, TOKENS, dtype=torch.int64))
            infonce(image, text, scale.float()).backward()
    return counter


def _count_update(name: str, clip: ClipConfig, kind: str | None = None) -> tuple[OperatorCounter, int, int]:
    """The step of the recipe's optimizer, or of that of this kind, on the same parameters, made narrow."""
    chosen = [f"optim.name={kind}"] if kind else []
    settings = config.load_config(name, ["zero.stage=0", "train.precision=bf16", *chosen])
    module = ContrastiveModel(Clip(_make_narrow(clip)), settings.train)
    optimizer = optim.build_optimizer(Contrastive(settings).parameter_groups(module), settings.optim)
    masters = MasterWeights(optimizer, torch.bfloat16, settings.optim.clip_norm, LossScale())
    masters.attach(module)
    # The first step makes the moments.
    for counter in (OperatorCounter(), OperatorCounter()):
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.full_like(parameter, 1e-3)
        with counter:
            masters.step()
    return counter, sum(p.requires_grad for p in module.parameters()), len(masters.param_groups)


def _make_narrow(clip: ClipConfig) -> ClipConfig:
    vision = dataclasses.replace(clip.vision, width=8, head_width=8, hidden_width=8, image_size=NARROW_SIDE)
    text = dataclasses.replace(clip.text, width=8, heads=1, vocab_size=16)
    return dataclasses.replace(clip, vision=vision, text=text, embed_dim=8)


def trace_stages(name: str = "eva02-l-14") -> list[dict[str, Any]]:
    """A row a ZeRO stage: a step through DeepSpeed's engine on one rank, of the same depth, tensors and groups."""
    from trainer import launch
    from trainer.launch import Rank

    launch.prepare_environment(Rank())
    with launch.process_group(Rank()):
        return [_trace_stage(name, stage) for stage in (0, 1, 2, 3)]


def _trace_stage(name: str, stage: int) -> dict[str, Any]:
    from trainer import zero

    settings = config.load_config(
        name, [f"zero.stage={stage}", "train.precision=bf16", "train.batch_size=2", "train.micro_batch_size=2"]
    )
    objective = Contrastive(settings)
    zero_settings = zero.make_zero_config(settings, 1, on_gpu=False)
    with zero.shard_while_building(settings, zero_settings):
        module = ContrastiveModel(Clip(_make_narrow(models.config(name))), settings.train)
    optimizer = optim.build_optimizer(objective.parameter_groups(module), settings.optim)
    engine = zero.make_engine(module, optimizer, zero_settings)
    engine.train()
    if isinstance(engine.optimizer, MasterWeights):
        engine.optimizer.lends_gradients = False  # as on a GPU
    batch = {"pixels": torch.randn(2, 3, NARROW_SIDE, NARROW_SIDE), "tokens": torch.tensor([[0, 1, 15]] * 2)}
    for passes, step in ((OperatorCounter(), OperatorCounter()), (OperatorCounter(), OperatorCounter())):
        with passes:
            objective.step(engine, [batch], lambda _: None, lambda _: True)
        with step:
            engine.step()
    operators, reads = DEEPSPEED[stage]
    row = {
        "model": name, "ZeRO stage": stage, "forward and backward": passes.total, "optimizer": step.total,
        "host reads": step.host_reads, "DeepSpeed's optimizer": operators, "DeepSpeed's host reads": reads,
    }  # fmt: skip
    engine.destroy()
    return row
