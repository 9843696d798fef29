"""The root of one whole demo, made by the first test that asks for it."""

from __future__ import annotations

import pytest

from tests.support import demo_run as runner


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> runner.DemoRun:
    """`curate demo`, training included; about 70 s on two cores. For slow tests only; leave its root as it is."""
    return runner.run(tmp_path_factory.mktemp("demo") / "run")
