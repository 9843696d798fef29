"""The benchmark compares like with like: both trainers start from one loss and take nearly the same step."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import trainer as benchmark
from benchmarks import trainer_trace
from benchmarks.trainer_steps import OURS, PEER, TINY, WHOLE, Case, case_flops
from tests.support.trainer.torchvision_stub import oracle


@pytest.mark.slow
def test_open_clips_step_is_ours() -> None:
    oracle("open_clip")
    cases = [Case(model=TINY, trainer=who, batch=6, steps=2) for who in (PEER, OURS, WHOLE)]
    peer, ours, whole = (benchmark.started(case)["losses"] for case in cases)
    assert ours == pytest.approx(whole, rel=1e-4)
    assert ours[0] == pytest.approx(peer[0], rel=1e-5)
    # The position embeddings and CLS decay there and not here; the rest is one and the same AdamW.
    assert ours[1:] == pytest.approx(peer[1:], rel=1e-3) and ours[2] < 0.9 * ours[0]


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
        }  # fmt: skip

    monkeypatch.setattr(benchmark, "started", started)
    monkeypatch.setattr(benchmark, "add", written.extend)
    monkeypatch.setattr(benchmark.torch.cuda, "is_available", lambda: True)
    benchmark.on_gpu()
    assert len(written) == len(benchmark.gpu_cases()) - 1
    assert (written[0]["model"], written[0]["TFLOP/s"], written[0]["MFU"]) == ("eva02-l-14", 2.0, 0.5)
    assert "out of memory" in capsys.readouterr().err


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
