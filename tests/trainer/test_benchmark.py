"""The benchmark compares like with like: both trainers start from one loss and take nearly the same step."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import trainer as benchmark
from benchmarks import trainer_trace
from benchmarks.trainer_steps import KERNELS, OURS, PEER, TINY, WHOLE, Case, case_flops, classify, estimate_gb
from tests.support.trainer.torchvision_stub import oracle


@pytest.mark.slow
def test_open_clips_step_is_ours_and_what_it_asks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle("open_clip")
    cases = [Case(model=TINY, trainer=who, batch=6, steps=2) for who in (PEER, OURS, WHOLE)]
    results = [benchmark.started(case) for case in cases]
    peer, ours, whole = (result["losses"] for result in results)
    assert ours == pytest.approx(whole, rel=1e-4)
    assert ours[0] == pytest.approx(peer[0], rel=1e-5)
    # The position embeddings and CLS decay there and not here; the rest is one and the same AdamW.
    assert ours[1:] == pytest.approx(peer[1:], rel=1e-3) and ours[2] < 0.9 * ours[0]
    monkeypatch.setattr(benchmark, "started", lambda case, timeout_s: results[1])
    row = benchmark._gpu_row(cases[1], 1.0)
    assert row["launches"] > 100 and row["samples/s"] > 0 and set(benchmark.GPU_COLUMNS) - {"data wait"} <= set(row)
    shares = {kind: row[kind] for kind in (*KERNELS, "elementwise")}
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0
    assert min(shares[kind] for kind in ("products", "attention", "norms", "elementwise")) > 0


def test_a_case_that_fails_on_a_gpu_costs_its_own_row_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[dict[str, Any]] = []

    def started(case: Case, timeout_s: float) -> dict[str, Any]:
        assert timeout_s <= benchmark.CASE_SECONDS
        if case.model == "eva-clip-8b":
            raise RuntimeError("torch.OutOfMemoryError: CUDA out of memory")
        return {
            "seconds": [0.5], "losses": [1.0], "flops": 1e12, "memory_gb": 1.0, "device": "GPU", "peak_tflops": 4.0,
            "launches": 9, "dry_run_gb": 1.5, "kernel_seconds": dict.fromkeys((*KERNELS, "elementwise"), 0.1),
        }  # fmt: skip

    monkeypatch.setattr(benchmark, "started", started)
    monkeypatch.setattr(benchmark, "add", lambda rows, *_: written.extend(rows))
    monkeypatch.setattr(benchmark, "waited", lambda *_, **__: {"model": "eva02-b-16", "data wait": 0.01})
    monkeypatch.setattr(benchmark.torch.cuda, "is_available", lambda: True)
    benchmark.on_gpu()
    assert len(written) == len(benchmark.gpu_cases()) and {tuple(row) for row in written} == {(*benchmark.GPU_COLUMNS,)}
    assert written[-1]["data wait"] == 0.01
    found = written[0]
    assert (found["samples/s"], found["dry run GB"], found["launches"], found["kernels s"]) == (256, 1.5, 9, 0.7)
    assert (written[0]["model"], written[0]["TFLOP/s"], written[0]["MFU"]) == ("eva02-l-14", 2.0, 0.5)
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nvjet_sm90_tst_192x192_64x4_2x1_v_bz_coopB_TNT", "products"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_align2>", "products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16", "attention"),
        ("void at::native::vectorized_layer_norm_kernel<c10::BFloat16, float>", "norms"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<float>>", "elementwise"),
    ],
)
def test_a_kernel_is_classed_by_its_name(name: str, kind: str) -> None:
    assert classify(name) == kind


def test_the_dry_runs_memory_stands_beside_a_whole_model_of_ours_alone() -> None:
    assert estimate_gb(Case(model="eva02-l-14", batch=128)) == pytest.approx(52, rel=0.15)
    assert estimate_gb(Case(model="eva02-l-14", layers=2)) is None
    assert estimate_gb(Case(model="eva02-l-14", trainer=PEER)) is None


@pytest.mark.slow
def test_the_loaders_share_is_measured_on_packed_shards() -> None:
    row = benchmark.waited(steps=3, batch=4, model="debug")
    assert 0 <= row["data wait"] <= 1 and row["fastest s"] <= row["median s"] and row["device"] == "CPU"


def test_without_a_gpu_the_gpu_part_says_so() -> None:
    with pytest.raises(SystemExit, match=r"There is no GPU: .* trace"):
        benchmark.on_gpu()


def test_a_traced_step_of_l_14_stays_below_3000_operators() -> None:
    row = trainer_trace.trace_model("eva02-l-14")
    assert row["operators"] < 3000 and row["optimizer"] < 100 and row["optimizer's host reads"] == 1
    assert row["padded"] > 0.9 > row["FLOPs of full tiles, plain"]


def test_padding_counts_only_where_it_is_computed() -> None:
    flops = {who: case_flops(Case(model="eva02-b-16", trainer=who)) for who in (OURS, WHOLE, PEER)}
    assert flops[OURS] < flops[WHOLE] < flops[PEER]
