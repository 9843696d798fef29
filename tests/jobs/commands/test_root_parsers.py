"""Commands on a root that stands say in one sentence that there is none, and write nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.commands.root_parsers import add_root_commands
from tests.support import removal

CALLS = {
    "status": ["ROOT"],
    "verify": ["ROOT"],
    "seal": ["ROOT"],
    "report": ["ROOT", "--output", "OUT"],
    "browse": ["ROOT"],
    "query": ["ROOT", "select 1", "--output", "OUT"],
    "export": ["ROOT", "--format", "uids", "--output", "OUT"],
    "gc": ["ROOT", "--yes"],
    "forget": ["ROOT", "--host", "example.org"],
    "sample": ["ROOT", "--share", "0.5", "--root", "OUT"],
    "move": ["ROOT", "OUT"],
}


@pytest.mark.parametrize(("command", "words"), CALLS.items(), ids=CALLS)
def test_a_folder_that_is_no_root_is_one_sentence(
    command: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"ROOT": str(tmp_path / "empty"), "OUT": str(tmp_path / "out")}
    with pytest.raises(SystemExit) as ended:
        main([command, *(places.get(word, word) for word in words)])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.count("\n") == 1 and "is no root" in said.err
    assert [*tmp_path.iterdir()] == [tmp_path / "empty"] and not [*(tmp_path / "empty").iterdir()]


def test_every_command_on_a_root_is_called_above() -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    add_root_commands(commands)
    assert set(commands.choices) == {*CALLS, "adopt"}  # which makes its root


@pytest.mark.parametrize("target", ["root", "root/below", ".", "link"])
@pytest.mark.parametrize("command", ["sample", "move"])
def test_a_new_root_in_the_old_one_is_refused_at_once(
    command: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = removal.build(tmp_path / "root")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    before = sorted(tmp_path.rglob("*"))
    words = ["--share", "0.5", "--root"] if command == "sample" else []
    with pytest.raises(SystemExit) as ended:
        main([command, made.root.base, *words, str(tmp_path / target)])
    assert ended.value.code == 2 and "lies in it: name a folder outside of it." in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
