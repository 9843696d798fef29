"""The command line called in this process, with what it prints and its exit status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.cli import main


class Command:
    """`command("status", root)` → exit status; `out` and `err` hold what that call printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        self.out, self.err = self._capsys.readouterr()
        return int(ended.value.code or 0)

    def refuses(self, *arguments: object) -> str:
        """The one sentence with which this call is refused, with status 2 and nothing else said."""
        assert self(*arguments) == 2, self.err
        assert self.out == ""
        return sentence(self.err)


def sentence(err: str) -> str:
    """The sentence in `err`, which holds nothing but that: no traceback, no second line."""
    lines = [line for line in err.splitlines() if not re.search(r"WARNING: Using incubator|log level", line)]
    assert len(lines) == 1 and lines[0].startswith("curate: "), err
    return lines[0].removeprefix("curate: ")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
