"""The journal of a unit: what a kill leaves is what was whole, and nothing else."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.download.journal import Journal


def row(number: int) -> dict[str, object]:
    return {"uid": f"{number:032x}", "status": "ok", "detail": None, "caption": "é\n\0"}


def written(path: Path, sizes: list[int]) -> None:
    with Journal(path).open() as journal:
        for number, size in enumerate(sizes):
            journal.add(row(number), bytes([number % 256]) * size)


def test_rows_and_pictures_come_back(tmp_path: Path) -> None:
    path = tmp_path / "unit.journal"
    sizes = [0, 1, 100, 3_000_000, 0, 7]
    with Journal(path).open() as journal:
        for number, size in enumerate(sizes):
            journal.add(row(number), bytes([number]) * size)
            if size:
                assert journal.read_picture(f"{number:032x}") == bytes([number]) * size
    with Journal(path).open() as again:
        assert again.rows == {f"{n:032x}": row(n) for n in range(len(sizes))}
        assert all(again.read_picture(f"{n:032x}") == bytes([n]) * size for n, size in enumerate(sizes) if size)
        again.add(row(99), b"more")
        assert again.read_picture(f"{99:032x}") == b"more"
        again.delete()
    assert not path.exists()


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=6), cut=st.floats(0, 1), junk=st.binary(max_size=40))
def test_a_torn_end_is_dropped_and_written_over(tmp_path: Path, sizes: list[int], cut: float, junk: bytes) -> None:
    path = tmp_path / "unit.journal"
    path.unlink(missing_ok=True)
    written(path, sizes)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))] + junk)
    with Journal(path).open() as journal:
        kept = len(journal.rows)
        assert list(journal.rows.values()) == [row(n) for n in range(kept)]
        for number in range(kept, len(sizes)):
            journal.add(row(number), bytes([number]) * sizes[number])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("place", [0, 5, 12, 20, 60, -1])
def test_a_changed_byte_ends_the_journal_there(tmp_path: Path, place: int) -> None:
    path = tmp_path / "unit.journal"
    written(path, [100, 100])
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)
    with Journal(path).open() as journal:
        assert len(journal.rows) == (1 if place == -1 else 0)


@pytest.mark.parametrize("place", [20, 60, -100, -1])
def test_a_picture_is_vouched_for_by_its_row(tmp_path: Path, place: int) -> None:
    path, picture = tmp_path / "unit.journal", bytes(100)
    rows = [row(number) | {"stored_sha256": hashlib.sha256(picture).hexdigest()} for number in range(2)]
    with Journal(path).open() as journal:
        for one in rows:
            journal.add(one, picture)
    data = bytearray(path.read_bytes())
    with Journal(path).open() as journal:
        assert list(journal.rows.values()) == rows
    data[place] ^= 255
    path.write_bytes(data)
    with Journal(path).open() as journal:
        assert len(journal.rows) == (1 if place < 0 else 0)


def test_what_was_ended_before_a_failure_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "unit.journal"
    with pytest.raises(ZeroDivisionError), Journal(path).open() as journal:
        journal.add(row(0), b"first")
        journal.add(row(1), b"second")
        raise ZeroDivisionError
    with Journal(path).open() as journal:
        assert [journal.read_picture(uid) for uid in journal.rows] == [b"first", b"second"]


def test_two_cannot_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "unit.journal"
    with Journal(path).open(), pytest.raises(BlockingIOError):
        Journal(path).open()
    Journal(path).open().__exit__(None, None, None)


WRITER = """
import sys, time
from pathlib import Path
from curation.download.journal import Journal
with Journal(Path(sys.argv[1])).open() as journal:
    for number in range(10**6):
        journal.add({"uid": f"{number:032x}"}, bytes([number % 256]) * (number % 5000))
        time.sleep(0.001)
"""


def test_sigkill_leaves_a_journal_that_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "unit.journal"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    while not path.exists() or path.stat().st_size < 100_000:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with Journal(path).open() as journal:
        assert len(journal.rows) > 20
        assert list(journal.rows) == [f"{n:032x}" for n in range(len(journal.rows))]
        last = len(journal.rows) - 1
        assert not last % 5000 or journal.read_picture(f"{last:032x}") == bytes([last % 256]) * (last % 5000)
