"""What a process of the trainer benchmark does: steps of ours or of open_clip's, from the same weights and batch."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer import config, launch, models, weights, zero
from trainer.data import tokenizer
from trainer.launch import Rank
from trainer.metrics import memory_gb, peak_tflops
from trainer.models import flops

OPEN_CLIP = {"eva02-b-16": "EVA02-B-16", "eva02-l-14": "EVA02-L-14", "eva02-e-14-plus": "EVA02-E-14-plus"}
TINY = "tiny"
"""The debug model, which open_clip has no name for: its towers are put together from timm's and open_clip's parts."""
OURS, WHOLE, PEER = "ours", "ours, 77 tokens", "open_clip"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One process's work."""

    model: str
    trainer: str = OURS
    batch: int = 4
    steps: int = 3
    recompute: bool = False
    stage: int = 0
    patch_drop: float = 0.0
    layers: int | None = None
    """Blocks of each tower, where the whole model would not fit."""

    @property
    def label(self) -> str:
        """The trainer's name in the table."""
        extras = [f"ZeRO-{self.stage}"] if self.stage else []
        extras += ["recomputing"] if self.recompute else []
        return ", ".join([self.trainer, *extras])

    def clip_config(self) -> Any:
        """The model's numbers."""
        name = "debug" if self.model == TINY else self.model
        less: dict[str, Any] = {"layers": self.layers} if self.layers else {}
        return models.config(name, vision=less, text=less)


def work(case: Case) -> dict[str, Any]:
    """One warm-up step and `case.steps` timed ones, in this process."""
    launch.prepare_environment(Rank())
    with launch.process_group(Rank()) as device:
        step = peer_step(case, device) if case.trainer == PEER else our_step(case, device)
        losses, seconds = [], []
        for _ in range(1 + case.steps):
            start = time.perf_counter()
            losses.append(step().item())
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        memory = memory_gb(device)
        kernels = profile_kernels(step, device)
        return {
            "launches": sum(number for number, _ in kernels.values()),
            "kernel_seconds": {kind: seconds for kind, (_, seconds) in kernels.items()},
            "dry_run_gb": estimate_gb(case),
            "seconds": seconds[1:],
            "losses": losses,
            "flops": case_flops(case),
            "memory_gb": memory,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
            "peak_tflops": peak_tflops(device) or matmul_tflops(),
        }


KERNELS = {
    "products": r"gemm|nvjet|cutlass|xmma|aten::(addmm|mm|bmm|matmul|linear)$",
    "attention": r"flash|fmha|sdpa|attention",
    "norms": r"norm",
    "optimizer": r"adam|multi_tensor_apply|foreach",
    "copies": r"memcpy|memset|copy|catarray|aten::cat$",
    "reductions": r"reduce|aten::(sum|mean|amax)$",
}
"""Classes of kernels by what their names contain, the first that fits; the rest is elementwise."""
_CLASS = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in KERNELS.items()}
_ORDER = ("attention", "products", "optimizer", "norms", "copies", "reductions")


def classify(name: str) -> str:
    """The class of a kernel of a GPU, or of an operator on a CPU."""
    return next((kind for kind in _ORDER if _CLASS[kind].search(name)), "elementwise")


def profile_kernels(step: Callable[[], Tensor], device: torch.device) -> dict[str, tuple[int, float]]:
    """Number and seconds of one more step's kernels by class; on a CPU of its operators, without those they call."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    found: dict[str, tuple[int, float]] = {kind: (0, 0.0) for kind in (*KERNELS, "elementwise")}
    for event in profiler.key_averages():
        if on_gpu != (event.device_type.name == "CUDA") or not (on_gpu or event.key.startswith("aten::")):
            continue
        number, seconds = found[classify(event.key)]
        micros = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        found[classify(event.key)] = (number + event.count, seconds + micros / 1e6)
    return found


def estimate_gb(case: Case) -> float | None:
    """What the dry run says of the case's memory; None where it knows no such model, or no such trainer."""
    from trainer import dry_run

    if case.layers is not None or case.trainer == PEER or case.model == TINY:
        return None
    settings = config.load_config(
        case.model,
        [
            f"train.batch_size={case.batch}", f"train.micro_batch_size={case.batch}", "train.precision=bf16",
            f"zero.stage={case.stage}", "optim.name=adamw", f"phases.0.patch_drop={case.patch_drop}",
            f"model.grad_checkpointing={str(case.recompute).lower()}",
        ],
    )  # fmt: skip
    return dry_run.estimate_memory(settings, 1, case.stage).total / 1e9


def batch_of(case: Case) -> tuple[Tensor, Tensor]:
    """Random pictures, and captions of 4 to 20 words, about as long as the web's."""
    generator, rng = torch.Generator().manual_seed(0), random.Random(0)
    side = case.clip_config().vision.image_size
    words = ("photo", "red", "shoes", "beach", "2019", "of", "the", "new", "house", "dog", "vintage", "for", "sale")
    captions = [" ".join(rng.choices(words, k=rng.randint(4, 20))) for _ in range(case.batch)]
    tokens = tokenizer.tokenize(captions)
    return torch.randn(case.batch, 3, side, side, generator=generator), (
        tokenizer.trim(tokens) if case.trainer == OURS else tokens
    )


def case_flops(case: Case) -> float:
    """Of one step: what our towers multiply, or all of the last block too for open_clip's."""
    clip, tokens = case.clip_config(), batch_of(case)[1].shape[1]
    if case.trainer == PEER:
        image = flops.image_flops(clip, case.patch_drop, published=True)
        return 3.0 * case.batch * (image + flops.text_flops(clip, tokens, published=True))
    return float(case.batch * flops.step_flops(clip, case.patch_drop, tokens))


def initial(case: Case) -> Any:
    """The weights that both trainers start from."""
    from trainer.models.clip import Clip

    torch.manual_seed(0)
    return Clip(case.clip_config())


def our_step(case: Case, device: torch.device) -> Callable[[], Tensor]:
    """The step of `trainer.train` on one rank."""
    from trainer import optim
    from trainer.objectives.contrastive import Contrastive
    from trainer.objectives.contrastive_model import ContrastiveModel

    precision = "bf16" if device.type == "cuda" else "fp32"
    settings = config.load_config(
        "debug",
        [
            f"train.batch_size={case.batch}",
            f"train.precision={precision}",
            f"zero.stage={case.stage}",
            *("optim.image.lr=1e-4", "optim.text.lr=1e-4", "optim.clip_norm=0"),
        ],
    )
    objective = Contrastive(settings)
    clip = initial(case)
    clip.set_grad_checkpointing(case.recompute)
    clip.set_patch_drop(case.patch_drop)
    module = ContrastiveModel(clip, settings.train)
    zero_settings = zero.make_zero_config(settings, 1, on_gpu=device.type == "cuda")
    optimizer = optim.build_optimizer(objective.parameter_groups(module), settings.optim)
    engine = zero.make_engine(module, optimizer, zero_settings)
    engine.train()
    pixels, tokens = (part.to(device) for part in batch_of(case))

    def seed(micro_batch: int) -> None:
        torch.manual_seed(micro_batch)

    def step() -> Tensor:
        batch = {"pixels": pixels, "tokens": tokens}
        loss, _ = objective.step(engine, [batch], seed, lambda loss: math.isfinite(loss.item()))
        engine.step()
        return loss

    return step


def peer_step(case: Case, device: torch.device) -> Callable[[], Tensor]:
    """open_clip's model, loss, optimizer groups and clamp, on our initial weights."""
    from tests.support.trainer.torchvision_stub import oracle

    oracle("open_clip")
    from open_clip.loss import ClipLoss

    ours = initial(case)
    model = peer_model(case)
    model.load_state_dict(weights.export_state(ours.state_dict(), ours.config, "open_clip"), strict=True)
    del ours
    model.to(device).train()
    if case.recompute:
        model.set_grad_checkpointing()
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[parameter.ndim >= 2].append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": groups[False], "weight_decay": 0.0}, {"params": groups[True], "weight_decay": 0.05}],
        lr=1e-4, betas=(0.9, 0.98), eps=1e-6,
    )  # fmt: skip
    loss_of = ClipLoss()
    pixels, tokens = (part.to(device) for part in batch_of(case))

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out = model(pixels, tokens)
            loss: Tensor = loss_of(*(out.values() if isinstance(out, dict) else out[:3]))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        return loss.detach()

    return step


def peer_model(case: Case) -> Any:
    """open_clip's model of that name, or for the tiny one its class around a small trunk of timm's."""
    import open_clip
    import timm

    clip = case.clip_config()
    name = OPEN_CLIP.get(case.model, "EVA02-B-16")
    if case.model in OPEN_CLIP:
        return open_clip.create_model(name, load_weights=False)
    vision, text = clip.vision, clip.text
    model = open_clip.model.CustomTextCLIP(
        clip.embed_dim,
        open_clip.get_model_config(name)["vision_cfg"] | {"image_size": vision.image_size},
        {"width": text.width, "heads": text.heads, "layers": text.layers},
        output_dict=True,
    )
    model.visual.trunk = timm.create_model(
        "eva02_base_patch16_clip_224", img_size=vision.image_size, embed_dim=vision.width, depth=vision.layers,
        num_heads=vision.heads, mlp_ratio=vision.hidden_width / vision.width, num_classes=clip.embed_dim,
        global_pool="token", ref_feat_shape=(vision.rope_grid, vision.rope_grid),
    )  # fmt: skip
    return model


def matmul_tflops(side: int = 2048, repeats: int = 5) -> float:
    """The best of a few float32 products of square matrices in this process."""
    left, right = torch.randn(2, side, side)
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[1:]) / 1e12
