"""Filters on this machine: every unit is scored once, and a process that is ended is one sentence."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from curation.errors import UserError
from curation.recipe.select_config import SelectConfig
from curation.storage import Root
from jobs.scoring import local
from jobs.scoring.flow import Work
from tests.support import small_root
from tests.support.own_filters import EndProcess
from tests.support.small_root import UNITS

NOWHERE = Root("/nowhere")


def _work(root: Root, num_units: int, *names: str) -> Work:
    missing = [(f"0a1b2c3d-{number:06d}", names) for number in range(num_units)]
    return Work(root=root, filters={name: filters.build(name, {}) for name in names}, missing=missing)


@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=40), st.integers(1, 8))
def test_runs_have_every_unit_once_in_their_order_and_not_too_many_rows(sizes: list[int], processes: int) -> None:
    work = _work(NOWHERE, len(sizes), "caption_length")
    with patch.object(local, "measure_units", lambda root, units: sizes):
        runs = list(local.cut_runs(work, processes))
    assert [one for run in runs for one in run] == work.missing
    of_unit = dict(zip(work.units, sizes, strict=True))
    most = min(local.ROWS_PER_CALL, sum(sizes) // (local.CALLS_PER_PROCESS * processes))
    assert all(len(run) == 1 or sum(of_unit[unit] for unit, _ in run) <= most for run in runs)


def test_units_with_pictures_are_given_to_a_process_one_by_one() -> None:
    work = _work(NOWHERE, 9, "caption_length", "entropy")
    assert list(local.cut_runs(work, 2)) == [[one] for one in work.missing]


def test_a_process_that_was_ended_is_one_sentence_and_a_rerun_scores_the_rest(root: Root) -> None:
    small_root.build(root)
    missing = [(unit, ["caption_length", "ends"]) for unit in UNITS]
    length = filters.build("caption_length", {})
    work = Work(root=root, filters={"caption_length": length, "ends": EndProcess()}, missing=missing)
    with pytest.raises(UserError, match=r"ended from outside.*select\.threads"):
        local.score_here(work, SelectConfig(threads=2))
    left = Work(root=root, filters={"caption_length": length}, missing=[(unit, ["caption_length"]) for unit in UNITS])
    local.score_here(left, SelectConfig(threads=2))
    assert root.units("scores_caption_length") == list(UNITS)
