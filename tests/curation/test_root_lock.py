"""Two drivers on one root: the second waits, says so, and goes on when the first has ended in whatever way."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from curation import root_lock
from curation.root_lock import LEASES, hold_root
from curation.storage import Root
from tests.support import s3_server

HOLD = """
import sys, time
from curation.root_lock import hold_root
from curation.storage import Root
with hold_root(Root(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""

HOLD_ON_STORE = """
import sys, time
from curation import root_lock
from curation.storage import Root
from tests.support import s3_server
root_lock.LEASE_S = 8.0
with root_lock.hold_root(Root("s3://curation/run", **s3_server.options(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["local", "store"])
def base(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(root_lock, "POLL_S", 0.02)
    monkeypatch.setattr(root_lock, "RENEW_S", 0.05)
    return str(tmp_path / "root") if request.param == "local" else f"memory://{tmp_path.name}/root"


def test_a_second_driver_waits_and_says_so(
    base: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order, waits, say = list[str](), threading.Event(), root_lock.write_error

    def tell(text: str) -> None:
        say(text)
        waits.set()

    def second() -> None:
        with hold_root(Root(base)) as waited:
            order.append(f"second, waited: {waited}")

    monkeypatch.setattr(root_lock, "write_error", tell)
    with hold_root(Root(base)) as waited:
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(120)
        time.sleep(0.3)  # a second driver that only said so would go on in this time
        order.append(f"first, waited: {waited}")
    thread.join(600)
    assert order == ["first, waited: False", "second, waited: True"]
    assert capsys.readouterr().err.count("another run is at work on") == 1


def test_many_drivers_that_come_at_once_hold_the_root_one_after_the_other(base: str) -> None:
    inside, seen = list[int](), list[int]()

    def drive(number: int) -> None:
        with hold_root(Root(base)):
            inside.append(number)
            time.sleep(0.01)
            seen.append(len(inside))
            inside.remove(number)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert seen == [1] * 6


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
    with hold_root(Root(tmp_path)) as waited:
        assert not waited


def test_a_lease_that_nobody_renews_expires(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute passes with each poll, on a clock that nothing else moves."""
    root, now = Root("memory://expired/root"), [1e9]

    def pass_time(_: float) -> None:
        now[0] += 60

    monkeypatch.setattr(root_lock, "time", SimpleNamespace(time=lambda: now[0], sleep=pass_time))
    root.publish_json(f"{LEASES}/dead.json", {"host": "gone", "pid": 7, "until": now[0] + 90})
    root.publish(f"{LEASES}/torn.json", b"{")
    with hold_root(root) as waited:
        assert waited and len(root.list(LEASES)) == 1 and now == [1e9 + 120]
    assert "process 7 on gone" in capsys.readouterr().err
    assert root.list(LEASES) == []


def test_a_lease_is_renewed_while_its_driver_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_lock, "RENEW_S", 0.05)
    root = Root("memory://renewed/root")
    with hold_root(root):
        (name,) = root.list(LEASES)
        first = root.read_json(f"{LEASES}/{name}")["until"]
        deadline = time.monotonic() + 600
        while root.read_json(f"{LEASES}/{name}")["until"] == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert root.read_json(f"{LEASES}/{name}")["until"] > first


def test_a_folder_whose_file_system_has_no_flock_gets_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    root = Root(tmp_path / "root")
    with hold_root(root):
        assert len(root.list(LEASES)) == 1
        root.check_can_create()


def test_a_folder_that_holds_a_lock_may_still_become_a_root() -> None:
    root = Root("memory://fresh/root")
    with hold_root(root):
        root.create()
    assert root.exists("root.json")
    fsspec.filesystem("memory").rm("/fresh", recursive=True)


@pytest.mark.slow
def test_on_a_real_store_the_second_driver_waits_until_a_killed_one_has_expired(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(root_lock, "POLL_S", 0.1)
    with s3_server.s3() as endpoint:
        options = s3_server.options(endpoint)
        with subprocess.Popen(
            [sys.executable, "-c", HOLD_ON_STORE, endpoint], stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            root = Root("s3://curation/run", **options)
            (lease,) = root.list(LEASES)
            holder.send_signal(signal.SIGKILL)
        until = root.read_json(f"{LEASES}/{lease}")["until"]
        with hold_root(root) as waited:
            assert waited and time.time() >= until
            assert root.list(LEASES) != [lease]
        assert root.list(LEASES) == []
    assert f"process {holder.pid} on" in capsys.readouterr().err
