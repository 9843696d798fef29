"""The folder for what is read back and believed: ours, and closed to others."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.private_folder import make_private_folder, private_folder_path
from curation.storage import Root


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_closed_to_others_and_stays_the_same() -> None:
    folder = make_private_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and make_private_folder() == folder


def test_the_journals_of_a_root_on_an_object_store_lie_there() -> None:
    assert Root("memory://bucket/root").scratch() == private_folder_path()


def test_a_folder_that_others_may_write_to_is_refused() -> None:
    private_folder_path().mkdir(mode=0o777)
    private_folder_path().chmod(0o777)
    with pytest.raises(UserError, match="remove it, or set TMPDIR"):
        make_private_folder()


def test_a_planted_link_is_refused(temporary: Path) -> None:
    (temporary / "theirs").mkdir(mode=0o700)
    private_folder_path().symlink_to(temporary / "theirs")
    with pytest.raises(UserError, match="not a folder that you own"):
        Root("memory://bucket/root").scratch()


def test_a_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = private_folder_path()
    path.mkdir(mode=0o700)
    monkeypatch.setattr("curation.private_folder.private_folder_path", lambda: path)
    monkeypatch.setattr("os.getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(UserError, match="not a folder that you own"):
        make_private_folder()
