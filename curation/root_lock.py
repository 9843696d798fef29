"""One driver at a time on a root: a lock that dies with the process that holds it.

A local folder is locked with flock, which the kernel releases when the process ends, however it ends. On an object
store, and where the file system has no flock, a driver writes a lease: an object of its own that it renews and that
expires. A driver holds the root if it wrote its lease and then saw no other: of two drivers, the one that looks later
sees the lease of the other, since stores list what was written before. It takes its own lease back and waits.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from curation.errors import UserError
from curation.files import SCRATCH
from curation.object_store import tolerate_failures
from curation.places import lies_in
from curation.scratch import delete_left
from curation.storage import Root
from curation.terminal import write_error

LEASES = f"{SCRATCH}/leases"
LEASE_S = 120.0
"""A lease that was not renewed for so long is that of a driver that died. Clocks of drivers must agree to a minute."""
RENEW_S = 20.0
POLL_S = 2.0
NO_FLOCK = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def hold_root(root: Root) -> Iterator[bool]:
    """Hold `root` against other drivers; yields whether another one had to be waited for, which is said once.

    The folder of a local root is made when there is none, and removed again when nothing was written into it. What
    killed processes left unpublished long ago is deleted.
    """
    with contextlib.ExitStack() as stack:
        waited = _lock_folder(Path(root.path), stack) if root.is_local else None
        waited = stack.enter_context(_hold_lease(root)) if waited is None else waited
        delete_left(root)
        yield waited


def hold_both(root: Root, target: Root) -> contextlib.AbstractContextManager[None]:
    """Hold `root` and the new root `target`. Raises UserError when one of them is the other or lies in it."""
    return hold_all([root], target)


@contextlib.contextmanager
def hold_all(roots: Sequence[Root], target: Root) -> Iterator[None]:
    """Hold `roots` and the new root `target`. Raises UserError when one of them is another or lies in it.

    They are held in the order of their names, so that two drivers with the same roots do not wait for each other.
    """
    named = [*roots, target]
    for inner, outer in itertools.permutations(named, 2):
        if _real(inner) == _real(outer) and target not in (inner, outer):
            raise UserError(f"{inner.base} is named twice: name each root once.")
        if lies_in(_real(inner), {_real(outer)}):
            raise UserError(f"{inner.base} is {outer.base} or lies in it: name a folder outside of it.")
    with contextlib.ExitStack() as stack:
        for root in sorted(named, key=_real):
            stack.enter_context(hold_root(root))
        yield


def _real(root: Root) -> str:
    return os.path.realpath(root.path) if root.is_local else root.url()


def _lock_folder(folder: Path, stack: contextlib.ExitStack) -> bool | None:
    """Lock `folder` until `stack` is closed. Whether that took waiting; None where the file system has no flock."""
    made, waited = not folder.exists(), False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        try:
            waited = _lock(descriptor, folder) or waited
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            return None
        if _is_same_folder(descriptor, folder):
            break
    if made:
        stack.callback(_remove_empty, folder)
    return waited


def _lock(descriptor: int, folder: Path) -> bool:
    """Lock `descriptor`; whether that took waiting."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say_waiting(str(folder))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    return False


def _is_same_folder(descriptor: int, folder: Path) -> bool:
    """Whether `folder` is still what was locked: the driver before may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it holds files
        folder.rmdir()


@contextlib.contextmanager
def _hold_lease(root: Root) -> Iterator[bool]:
    own = f"{LEASES}/{uuid.uuid4().hex}.json"
    waited = _take_lease(root, own)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew_lease, args=(root, own, ended), daemon=True)
    renewing.start()
    try:
        yield waited
    finally:
        ended.set()
        renewing.join()
        with tolerate_failures():  # a lease that stays expires
            root.remove(own)


def _take_lease(root: Root, own: str) -> bool:
    """Write the lease `own` when no other is alive; whether that took waiting."""
    waited = False
    while True:
        holder = _find_holder(root, own)
        if holder is None:
            _write_lease(root, own)
            holder = _find_holder(root, own)
            if holder is None:
                return waited
            root.remove(own)
        if not waited:
            _say_waiting(f"{root.base} (process {holder.get('pid')} on {holder.get('host')})")
            waited = True
        time.sleep(POLL_S * random.uniform(0.5, 1.5))  # two that came at once do not meet again and again


def _find_holder(root: Root, own: str) -> dict[str, Any] | None:
    """What another driver's lease says that has not expired; those that have are removed."""
    for name in root.list(LEASES, ".json"):
        rel = f"{LEASES}/{name}"
        if rel == own:
            continue
        try:
            lease = dict(root.read_json(rel))
            if float(lease["until"]) > time.time():
                return lease
        except FileNotFoundError:  # its driver has just ended
            continue
        except (UserError, ValueError, KeyError, TypeError):  # no lease of a driver, which writes it in one step
            pass
        root.remove(rel)
    return None


def _write_lease(root: Root, rel: str) -> None:
    root.publish_json(rel, {"host": socket.gethostname(), "pid": os.getpid(), "until": time.time() + LEASE_S})


def _renew_lease(root: Root, own: str, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        with tolerate_failures():  # tried again long before the lease expires
            _write_lease(root, own)


def _say_waiting(name: str) -> None:
    write_error(f"curate: another run is at work on {name}; waiting until it ends.\n")
