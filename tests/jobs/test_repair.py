"""What is lost of a finished root comes back by the command that made it, byte for byte, and verify names it before."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from curation.storage import Root
from curation.verify import find_differences, verify
from tests.support.demo_run import REPOSITORY, contents, curate, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
UNITS = ("samples", "rejects", "downloads", "embeddings/img_emb", "scores_entropy", "scores_language")
VERSIONED = ("duplicates", "selection", "train", "train_index")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("repair") / "run"
    run(made)
    return made


def run(folder: Path) -> None:
    command = curate("demo", "--no-train", "--root", folder)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), text=True, check=False, **streams)
    assert done.returncode == 0, done.stdout


def list_units(root: Root) -> list[str]:
    """A file of each table of units, and one of each kind of each versioned table's current version."""
    found = [f"{table}/{root.list(table)[1]}" for table in UNITS]
    for table in VERSIONED:
        version = (root.current(table) or {})["fingerprint"]
        names = root.list(f"{table}/{version}")
        found += [f"{table}/{version}/{name}" for name in {Path(name).suffix: name for name in names}.values()]
    return found


def list_records(root: Root) -> list[str]:
    """What says which versions, settings and plans there are, and a unit's metadata."""
    settings = [f"{table}/_config.json" for table in ("downloads", "embeddings/metadata", "scores_entropy")]
    current = [f"{table}/current.json" for table in VERSIONED]
    return [*settings, *current, f"plans/{root.list('plans')[0]}", f"embeddings/metadata/{named(root)}"]


def named(root: Root) -> str:
    return root.list("embeddings/metadata", ".parquet")[0]


@pytest.mark.parametrize("choose", [list_units, list_records])
def test_what_is_lost_comes_back(folder: Path, choose: object) -> None:
    root, before = Root(folder), contents(folder)
    assert callable(choose)
    lost = choose(root)
    for rel in lost:
        (folder / rel).unlink()
    said = list(find_differences(Root(folder)))
    for rel in lost:
        assert any(sentence.startswith(f"{rel} is missing: run `curate ") for sentence in said), (rel, said)
    run(folder)
    after = contents(folder)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []
    assert verify(Root(folder)) is None
