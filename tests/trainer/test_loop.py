"""The loop: the position in the data, the signal to stop, and gradients that are no numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.trainer.ranks import launch


@pytest.mark.slow
def test_nan_gradients_and_the_temperature_bound_at_every_stage(tmp_path: Path) -> None:
    what = json.dumps({"folder": str(tmp_path)})
    launch(
        1, [sys.executable, "-m", "tests.support.trainer.ranks", "tests.support.trainer.loop_worker:every_stage", what]
    )
