"""The step over all groups at once is DeepSpeed's step, in a few dozen operators and one read by the host."""

from __future__ import annotations

import pytest
import torch

from tests.support.trainer.ranks import run_ranks
from trainer.optim.whole_step import _bundle, _join

WORKER = "tests.support.trainer.whole_step_worker"


@pytest.mark.slow
def test_all_groups_at_once_are_deepspeeds_step_on_two_ranks() -> None:
    run_ranks(2, f"{WORKER}:compare", stages=[1, 2, 3], optimizers=["adamw"], precisions=["bf16"])


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_all_groups_at_once_are_deepspeeds_step(num_ranks: int) -> None:
    # What three numbers add up to in bf16 depends on their order.
    precisions = ["fp32", "bf16"] if num_ranks < 3 else ["fp32"]
    everything = {"stages": [1, 2, 3], "optimizers": ["adamw", "lamb", "lion"], "precisions": precisions}
    run_ranks(num_ranks, f"{WORKER}:compare", **everything)


def test_a_bundle_holds_neighbours_up_to_a_number_of_elements() -> None:
    assert list(_bundle([3, 4, 5, 20, 1], 8)) == [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    assert list(_bundle([3, 4], 100)) == [range(0, 2)]


def test_joined_gradients_are_aligned_and_padded_with_zeros() -> None:
    groups = [[torch.ones(2, 3), torch.full((2,), 2.0)], [torch.full((5,), 3.0)]]
    first, second = _join(groups, [10, 5])(0.5)
    assert first.tolist() == [0.5] * 6 + [1.0] * 2 + [0.0] * 2 and second.tolist() == [1.5] * 5
    assert first.storage_offset() % 64 == second.storage_offset() % 64 == 0
