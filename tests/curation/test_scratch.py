"""What a killed stage left in the scratch folder goes: by the next run of the stage, and by a removal of rows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curation import scratch
from curation.root_lock import hold_root
from curation.scratch import LEFT_AFTER_S, is_scratch_of, name_scratch, open_folder
from curation.storage import Root


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One scratch for all roots, as those on object stores have."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(Root, "scratch_path", folder)
    return folder


def leave(root: Root, stage: str) -> str:
    """What a kill would leave of the folder of `stage`; its name."""
    with open_folder(root, stage) as folder:
        (folder / "rows").write_text("a row")
        left = Path(shutil.copytree(folder, f"{folder}left"))
    return left.name


def test_a_stage_deletes_what_it_left_of_this_root_alone(shared: Path, tmp_path: Path) -> None:
    one, two = Root(tmp_path / "one"), Root(tmp_path / "two")
    leave(one, "pack")
    others = {leave(two, "pack"), leave(one, "select")}
    with open_folder(one, "pack") as folder:
        assert {path.name for path in shared.iterdir()} == {folder.name, *others}
    assert {path.name for path in shared.iterdir()} == others


def test_names_say_which_root_wrote_them(tmp_path: Path) -> None:
    one, two = Root(tmp_path / "one"), Root(tmp_path / "two")
    name = f"{name_scratch(one, 'raw')}abc"
    assert is_scratch_of(one, name) and not is_scratch_of(two, name)
    assert not is_scratch_of(one, "leases") and not is_scratch_of(one, "9b69fdd9-000001-3f.journal")


def test_a_root_that_was_not_there_is_not_there_afterwards(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    with open_folder(root, "ingest") as folder:
        assert folder.is_dir()
    assert not (tmp_path / "root").exists()


KILLED = """
import os, signal, sys
from curation.storage import Root
os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
Root(sys.argv[1]).publish("samples/a.parquet", b"rows")
"""


def test_what_a_kill_left_unpublished_is_deleted_by_a_run_a_day_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root(tmp_path / "root")
    assert subprocess.run([sys.executable, "-c", KILLED, root.base], check=False).returncode == -9
    (left,) = root.scratch().iterdir()
    os.utime(left, (0, 0))  # as a file that was moved here and has kept its time
    (root.scratch() / "leases").mkdir()
    with hold_root(root):
        assert left.read_bytes() == b"rows", "another machine may be about to publish it"
    later = time.time() + LEFT_AFTER_S + 60
    monkeypatch.setattr(scratch.time, "time", lambda: later)
    with hold_root(root):
        assert [path.name for path in root.scratch().iterdir()] == ["leases"]
