"""Which stage of a run is at work on a root, and how far its steps are: logs/stage.json, rewritten every few seconds.

`curate status` reads it; nothing reads it for decisions.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curation.errors import UserError
from curation.progress import Step, list_steps
from curation.records import NUMBER, Kinds, find_fault
from curation.storage import Root

FILE = "logs/stage.json"
LOG: Kinds = {"stage": str, "at": NUMBER, "seconds": NUMBER, "steps": list}
STEP: Kinds = {"desc": str, "unit": str, "done": int, "total": int, "per_s": NUMBER}
INTERVAL_S = 3.0
STALE_S = 10 * INTERVAL_S
"""A running stage updates its log more often, so an older log that says "running" is from a killed driver."""


@dataclass(frozen=True, kw_only=True)
class RunningStage:
    """A stage that is at work for `seconds`, with the steps that show their progress."""

    name: str
    seconds: float
    steps: tuple[Step, ...]


@contextlib.contextmanager
def log_stage(root: Root, name: str) -> Iterator[None]:
    """Keep the log of stage `name` while the body runs: from INTERVAL_S on, once there are a root and a step of work.

    A stage that finds within INTERVAL_S that its work is done touches no file of the root.
    """
    ended, started = threading.Event(), time.time()
    logging = threading.Thread(target=_log_often, args=(root, name, started, ended), name="stage-log", daemon=True)
    logging.start()
    try:
        yield
    finally:
        ended.set()
        logging.join()


def _log_often(root: Root, name: str, started: float, ended: threading.Event) -> None:
    is_logged = False
    while not ended.wait(INTERVAL_S):
        if is_logged or list_steps():
            is_logged = _publish(root, name, started, running=True) or is_logged
    if is_logged:
        _publish(root, name, started, running=False)


def _publish(root: Root, name: str, started: float, *, running: bool) -> bool:
    """Write the log; whether that was possible. A full disk, for example, must not end the stage because of its log."""
    with contextlib.suppress(Exception):
        if root.exists("root.json"):
            steps = [vars(step) for step in list_steps()]
            now = time.time()
            seen = {"steps": steps, "running": running, "at": round(now, 3), "seconds": round(now - started, 3)}
            root.publish_json(FILE, {"stage": name} | seen)
            return True
    return False


def read_running_stage(root: Root) -> RunningStage | None:
    """The stage that is at work now; None when none is, or when its log is damaged."""
    try:
        log: dict[str, Any] = root.read_record(FILE, LOG)
    except (UserError, FileNotFoundError):
        return None
    if not log.get("running") or log["at"] < time.time() - STALE_S:
        return None
    steps = tuple(Step(**{key: step[key] for key in STEP}) for step in log["steps"] if find_fault(step, STEP) is None)
    return RunningStage(name=log["stage"], seconds=log["seconds"], steps=steps)
