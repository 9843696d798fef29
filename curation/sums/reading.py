"""Sums of files whose readers cannot compare them: DuckDB and memory maps take the parts of a file that they need.

Such a file is summed as a whole before its first use. That it held what its ledger says is then remembered by what the
file system says of it, so that the next use asks for that alone. Rot changes nothing of it: after MAX_AGE_S the file is
summed again.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from curation.caches import cache_folder
from curation.errors import UserError
from curation.progress import bar
from curation.remedies import remedy
from curation.shards import file_sha256
from curation.storage import Root, fingerprint
from curation.sums.ledger import Sum, table_of

MAX_AGE_S = 7 * 86_400.0
"""So long a sum is taken to hold of a file that looks unchanged."""
SETTLED_S = 2.0
"""A file that was written within this time may change once more without a new date."""
MIN_LINES = 1_000
"""Lines beyond which a memory that is mostly outdated is written anew."""
SHOWN_BYTES = 4 << 30
"""From so many bytes on, reading them shows a bar."""
State = Mapping[str, Any]
Remembered = dict[str, tuple[str, int]]
"""Path relative to ROOT → the state and the sum in which the file was found, and when (Unix seconds)."""


def check_sums(root: Root, rels: Iterable[str]) -> None:
    """Raise UserError for the first of the files `rels` that is missing or does not hold what its ledger says.

    A file that no ledger describes, and one that a stage is making anew, is not read.
    """
    by_folder: dict[str, list[str]] = {}
    for rel in dict.fromkeys(rels):
        by_folder.setdefault(rel.rpartition("/")[0], []).append(rel)
    for folder, files in by_folder.items():
        described = [rel for rel in files if _is_described(root, rel)]
        if described:
            _check_folder(root, folder, described)


def _is_described(root: Root, rel: str) -> bool:
    expected = root.expected(rel) if table_of(rel) is not None else None
    return expected is not None and expected.sha256 is not None


def _check_folder(root: Root, folder: str, rels: Sequence[str]) -> None:
    memory = Memory(cache_folder() / "sums" / f"{fingerprint([root.url(), folder])}.jsonl")
    known, now = memory.read(), int(time.time())
    states = _list_states(root, folder, rels)
    unknown = [rel for rel in rels if not _is_remembered(known.get(rel), _state_and_sum(root, rel, states), now)]
    if unknown:
        _compare(root, unknown, states)
        settled = [rel for rel in unknown if _is_settled(states.get(rel), now)]
        memory.add({rel: (_state_and_sum(root, rel, states), now) for rel in settled})


class Memory:
    """What was found of the files of one folder: lines of JSON, of which later ones count more and torn ones nothing.

    Tasks of many processes add a line for each file, so it is not written anew each time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Remembered:
        """What is remembered; nothing when the file is not there or cannot be read."""
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return {}
        found = {rel: (state, when) for rel, state, when in filter(None, map(_parse_line, lines))}
        if len(lines) > 2 * len(found) + MIN_LINES:
            self.path.unlink(missing_ok=True)
            self.add(found)
        return found

    def add(self, found: Remembered) -> None:
        """Remember `found` too. Without a folder that can be written to, nothing is remembered."""
        text = "".join(f"{json.dumps([rel, state, when])}\n" for rel, (state, when) in found.items())
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(text)


def _parse_line(line: bytes) -> tuple[str, str, int] | None:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
        if isinstance(value, list) and [type(one) for one in value] == [str, str, int]:
            return value[0], value[1], value[2]
    return None


def _is_remembered(memory: tuple[str, int] | None, state: str, now: int) -> bool:
    return memory is not None and memory[0] == state and 0 <= now - memory[1] < MAX_AGE_S


def _state_and_sum(root: Root, rel: str, states: Mapping[str, State]) -> str:
    expected = root.expected(rel)
    return " ".join(map(str, (*states.get(rel, {}).values(), expected.sha256 if expected else None)))


def _is_settled(state: State | None, now: float) -> bool:
    return state is not None and now - state.get("changed", 0) / 1e9 > SETTLED_S


def _list_states(root: Root, folder: str, rels: Sequence[str]) -> Mapping[str, State]:
    """What the file system says of each of `rels`, which lie in `folder`; those that are missing are left out."""
    if root.is_local:
        return {rel: state for rel in rels if (state := _stat(root, rel)) is not None}
    listed = {f"{folder}/{name}": state for name, state in root.states(folder).items()}
    return {rel: listed[rel] for rel in rels if rel in listed}


def _stat(root: Root, rel: str) -> dict[str, int] | None:
    try:
        found = os.stat(root.full(rel))
    except FileNotFoundError:
        return None
    # A date can be set back, the time of the last change of the inode cannot.
    return {"size": found.st_size, "ino": found.st_ino, "mtime": found.st_mtime_ns, "changed": found.st_ctime_ns}


def _compare(root: Root, rels: Sequence[str], states: Mapping[str, State]) -> None:
    total = sum(int(states[rel]["size"]) for rel in rels if rel in states)
    shown = len(rels) if total >= SHOWN_BYTES else 0
    with (
        ThreadPoolExecutor(root.count_readers(os.cpu_count() or 1)) as pool,
        bar(shown, "compare sums", "file") as progress,
    ):
        try:
            for fault in pool.map(lambda rel: _find_fault(root, rel), rels):
                if fault is not None:
                    raise UserError(fault)
                progress.update(1 if shown else 0)
        finally:
            pool.shutdown(cancel_futures=True)


def _find_fault(root: Root, rel: str) -> str | None:
    """What is wrong with the file `rel`, None when it holds what its ledger says."""
    expected = root.expected(rel)
    fault = _describe_fault(root, rel, expected)
    if fault is None:
        return None
    # Another process may have replaced it since root.json was read.
    root.record()
    expected = root.expected(rel)
    return None if expected is None or expected.sha256 is None else _describe_fault(root, rel, expected)


def _describe_fault(root: Root, rel: str, expected: Sum | None) -> str | None:
    try:
        sha256 = file_sha256(root, rel)
    except FileNotFoundError:
        return f"{root.url(rel)} is missing: {remedy(rel, is_there=False)}."
    is_sound = expected is not None and sha256 == expected.sha256
    return None if is_sound else f"{root.url(rel)} does not hold what was published: {remedy(rel)}."
