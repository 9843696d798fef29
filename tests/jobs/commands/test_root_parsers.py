"""Commands on a root that stands say in one sentence that there is none, and write nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.commands.root_parsers import add_root_commands
from tests.support import removal, roots_to_merge

CALLS = {
    "status": ["ROOT"],
    "verify": ["ROOT"],
    "seal": ["ROOT"],
    "report": ["ROOT", "--output", "OUT"],
    "browse": ["ROOT"],
    "query": ["ROOT", "select 1", "--output", "OUT"],
    "export": ["ROOT", "--format", "uids", "--output", "OUT"],
    "gc": ["ROOT", "--yes"],
    "compact": ["ROOT"],
    "forget": ["ROOT", "--host", "example.org"],
    "sample": ["ROOT", "--share", "0.5", "--root", "OUT"],
    "merge": ["ROOT", "OTHER", "--into", "OUT"],
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
@pytest.mark.parametrize("command", ["sample", "merge", "move"])
def test_a_new_root_in_the_old_one_is_refused_at_once(
    command: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = removal.build(tmp_path / "root")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    other = removal.build(tmp_path / "other").root.base if command == "merge" else ""
    before = sorted(tmp_path.rglob("*"))
    words = {"sample": ["--share", "0.5", "--root"], "merge": [other, "--into"], "move": []}[command]
    with pytest.raises(SystemExit) as ended:
        main([command, made.root.base, *words, str(tmp_path / target)])
    assert ended.value.code == 2 and "lies in it: name a folder outside of it." in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_merge_ends_with_what_became_of_the_rows_of_each_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = roots_to_merge.build(tmp_path / "a", "aaaaaaaa", {1: "ok", 2: "timeout", 3: "ok"})
    second = roots_to_merge.build(tmp_path / "b", "bbbbbbbb", {2: "ok", 3: "ok"})
    with pytest.raises(SystemExit) as ended:
        main(["merge", first.root.base, second.root.base, "--into", str(tmp_path / "new"), "--without", "embeddings"])
    assert ended.value.code == 0
    names, *rows, end = (line.split() for line in capsys.readouterr().out.splitlines())
    assert names == ["rows", "taken", "forgotten", "refused", "has_picture", "was_tried", "named_earlier"]
    assert rows[0] == [first.root.base, "3", "2", "0", "0", "1", "0", "0"]
    assert rows[1] == [second.root.base, "2", "1", "0", "0", "0", "0", "1"]
    assert " ".join(end).startswith(
        f"{tmp_path / 'new'} has 3 rows, each uid once: go on with `curate embed`, `curate dedupe`"
    )
