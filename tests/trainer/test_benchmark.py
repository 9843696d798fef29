"""The benchmark compares like with like: both trainers start from one loss and take nearly the same step."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import trainer as benchmark
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


def test_the_largest_batch_is_the_last_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def started(case: Case) -> dict[str, Any]:
        tried.append(case.batch)
        if case.batch > 256:
            raise RuntimeError("torch.OutOfMemoryError: CUDA out of memory")
        return {
            "seconds": [0.5], "losses": [1.0], "flops": 1e12, "memory_gb": 1.0, "device": "GPU", "peak_tflops": 4.0,
        }  # fmt: skip

    monkeypatch.setattr(benchmark, "started", started)
    (row,) = benchmark.largest(Case(model="eva02-l-14"))
    assert tried == [64, 128, 256, 512]
    assert (row["batch"], row["TFLOP/s"], row["MFU"]) == (256, 2.0, 0.5)


def test_padding_counts_only_where_it_is_computed() -> None:
    flops = {who: case_flops(Case(model="eva02-b-16", trainer=who)) for who in (OURS, WHOLE, PEER)}
    assert flops[OURS] < flops[WHOLE] < flops[PEER]
