"""A file outside of a root appears when it is whole, and what is no regular file is written to as it is."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.files import whole_file
from curation.storage import Root


def _write(target: Path, data: bytes = b"new") -> None:
    with whole_file(target) as file:
        file.write(data)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    _write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    _write(pipe)
    reader.join()
    assert read == [b"new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays_a_device() -> None:
    before = os.stat("/dev/null")
    _write(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and os.stat("/dev/null").st_rdev == before.st_rdev


def test_the_mode_of_a_replaced_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    target.chmod(0o640)
    _write(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_nothing_appears_of_a_file_that_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "file"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["missing/file", "."])
def test_what_cannot_be_written_is_one_sentence(tmp_path: Path, place: str) -> None:
    with pytest.raises(UserError, match="make it first|is a folder"):
        _write(tmp_path / place)


def test_only_regular_files_of_a_folder_of_this_machine_are_listed(tmp_path: Path) -> None:
    files = Root(tmp_path / "root")
    (tmp_path / "root" / "t" / "below").mkdir(parents=True)
    (tmp_path / "root" / "t" / "a").write_bytes(b"123")
    (tmp_path / "root" / "t" / "link").symlink_to(tmp_path / "root" / "t" / "a")
    os.mkfifo(tmp_path / "root" / "t" / "pipe")
    (tmp_path / "root" / "elsewhere").symlink_to(tmp_path / "root" / "t")  # a table may lie on another disk
    assert files.sizes("t") == files.sizes("elsewhere") == {"a": 3}
    assert files.sizes("gone") == files.sizes("t/a") == {}
