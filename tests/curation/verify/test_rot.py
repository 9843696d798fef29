"""No byte of a sealed root changes, goes or comes without verify naming its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.storage import Root
from curation.verify import find_differences
from tests.support.rot_trials import build_roots, run_trials

NUM_TRIALS = 60
"""`make soak` runs a thousand."""


@pytest.mark.slow
def test_each_seeded_change_is_named(tmp_path: Path) -> None:
    folder, earlier = tmp_path / "root", tmp_path / "earlier"
    build_roots(folder, earlier)
    assert list(find_differences(Root(folder))) == []
    trials = list(run_trials(folder, earlier, range(NUM_TRIALS)))
    assert [trial for trial in trials if not trial.is_named] == []
