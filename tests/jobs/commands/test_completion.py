"""Completion: what bash offers after `curate`, asked of bash itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from curation.recipe.config import load_recipe
from jobs.commands.completion import list_settings
from jobs.stages import STAGES
from tests.support.command import Command


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("completion") / "curate.bash"


def complete(script: Path, folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    call = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _curate 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", call, str(script), *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_bash_completes_commands_options_values_settings_and_files(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command(capsys)
    assert command("completion") == 0
    script.write_text(command.out)
    (tmp_path / "mine.toml").touch()
    assert {*STAGES, "run", "status", "completion"} <= {*complete(script, tmp_path, "curate", "")}
    assert complete(script, tmp_path, "curate", "st") == ["status"]
    assert complete(script, tmp_path, "curate", "verify", "--q") == ["--quiet", "--quick"]
    assert complete(script, tmp_path, "curate", "export", "--format", "") == ["uids", "shards", "parquet"]
    assert complete(script, tmp_path, "curate", "run", "--set", "download.image") == ["download.image_size="]
    assert complete(script, tmp_path, "curate", "run", "--recipe", "m") == [
        "merged-2b",
        "metaclip",
        "metaclip-all-entries",
        "mine.toml",
    ]
    assert complete(script, tmp_path, "curate", "status", "") == ["mine.toml"]


def test_every_setting_that_is_offered_is_one() -> None:
    recipe = load_recipe("demo")
    offered = list_settings()
    assert "pack.seed" in offered and "filters" not in {name.partition(".")[0] for name in offered}
    for name in offered:
        section, _, key = name.partition(".")
        assert hasattr(getattr(recipe, section), key)
