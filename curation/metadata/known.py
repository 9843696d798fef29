"""Which metadata files are new to a root: a file is known by its place and by its content, whatever it is called.

The fingerprint of a file (size and end) is cheap, so it says which files can be equal; their sha256 says which are.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from curation.errors import UserError
from curation.metadata.inputs import NUM_READERS, Input
from curation.paths import open_file

SETTINGS = ("where", "columns", "format")
"""What decides, besides its content, which rows a file gives."""


@dataclass(frozen=True, kw_only=True)
class NewInputs:
    """What an ingest has to read, and what it leaves out since the root, or a file before it, gave the same rows."""

    fresh: list[Input]
    repeated: list[tuple[Input, str]]
    """Each with the path of the file that holds the same."""

    def describe_repeated(self) -> str:
        """One line for people; nothing when no file was left out."""
        if not self.repeated:
            return ""
        item, same = self.repeated[0]
        others = f", and {len(self.repeated) - 1:,} more" if len(self.repeated) > 1 else ""
        return f"Already ingested: {item.path} of source {item.source!r} holds what {same} holds{others}.\n"


def describe_input(item: Input) -> dict[str, Any]:
    """The record of one file in a plan."""
    record = {key: getattr(item, key) for key in ("source", "path", "format", "fingerprint", "num_rows", "where")}
    mapped = {"columns": {target: list(names) for target, names in item.columns.items()}} if item.mapped else {}
    return record | mapped | {"sha256": sum_input(item)}


def choose_new_inputs(found: Iterable[Input], planned: Iterable[Mapping[str, Any]], base: str) -> NewInputs:
    """Compare `found` with what the plans of root `base` record.

    Raises UserError when a planned file, or what its rows are chosen by, has changed since, and when two sources read
    one content differently.
    """
    places = {(record["source"], _locate(record["path"])): record for record in planned}
    by_fingerprint: dict[str, list[Mapping[str, Any]]] = {}
    for record in places.values():
        by_fingerprint.setdefault(record["fingerprint"], []).append(record)
    fresh, repeated, named = list[Input](), list[tuple[Input, str]](), set[tuple[str, str]]()
    for item in found:
        place = item.source, _locate(item.path)
        if place in places:
            _check_unchanged(item, places[place], base)
        elif place not in named:
            twins = by_fingerprint.setdefault(item.fingerprint, [])
            twin = next((record for record in twins if _is_same_content(item, record)), None)
            if twin is None:
                fresh.append(item)
                twins.append(_as_record(item))
            else:
                _check_read_alike(item, twin)
                repeated.append((item, twin["path"]))
        named.add(place)
    return NewInputs(fresh=fresh, repeated=repeated)


def sum_inputs(items: list[Input]) -> None:
    """Read every file once, several at a time, so that `describe_input` has their sums."""
    with ThreadPoolExecutor(NUM_READERS) as pool:
        list(pool.map(sum_input, items))


def sum_input(item: Input) -> str:
    """The sha256 of the file, read once by this process."""
    return _sum_file(item.path, item.fingerprint)


@functools.cache
def _sum_file(path: str, fingerprint: str) -> str:  # the fingerprint tells a file from what had its name before
    with open_file(path) as f:
        digest = hashlib.sha256()
        while block := f.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _locate(path: str) -> str:
    """One name for all spellings of a path and for links to it."""
    return path if "://" in path else os.path.realpath(path)


def _as_record(item: Input) -> dict[str, Any]:
    return {"source": item.source, "path": item.path, "fingerprint": item.fingerprint, **_settings(item)}


def _settings(item: Input) -> dict[str, Any]:
    columns = {target: list(names) for target, names in item.columns.items()} if item.mapped else None
    return {"where": item.where, "columns": columns, "format": item.format}


def _squeeze(value: Any) -> Any:
    """A condition counts by its words, not by its white space."""
    return " ".join(value.split()) if isinstance(value, str) else value


def _is_same_content(item: Input, record: Mapping[str, Any]) -> bool:
    """Whether both files hold the same, of which the equal fingerprints are a hint.

    Of a file that an earlier version ingested and that is gone, they are all that is known.
    """
    known = record.get("sha256")
    if known is None:
        try:
            known = _sum_file(record["path"], record["fingerprint"])
        except OSError:
            return True
    return sum_input(item) == known


def _changed_settings(item: Input, record: Mapping[str, Any]) -> Iterator[str]:
    """The settings of `item` that differ from those of `record`; earlier versions recorded no condition."""
    own = _settings(item)
    for name in SETTINGS if "where" in record else ():
        if _squeeze(record.get(name)) != _squeeze(own[name]):
            yield name


def _check_unchanged(item: Input, record: Mapping[str, Any], base: str) -> None:
    if record["fingerprint"] != item.fingerprint:
        raise UserError(
            f"{item.path} has changed since it was ingested into {base}: give the new file a new name, "
            f"or start a new root."
        )
    for name in _changed_settings(item, record):
        raise UserError(
            f"{item.path} was ingested into {base} with {name} {_show(record.get(name))} and source {item.source!r} "
            f"has {_show(_settings(item)[name])} now: put the earlier one back and choose among the rows by [rules], "
            f"give files that are new a source of their own, or start a new root."
        )


def _check_read_alike(item: Input, record: Mapping[str, Any]) -> None:
    for name in _changed_settings(item, record):
        raise UserError(
            f"{item.path} of source {item.source!r} holds what {record['path']} of source {record['source']!r} holds, "
            f"and the two have different {name}: name the file in one source, and choose among its rows by [rules]."
        )


def _show(value: Any) -> str:
    return repr(value) if value else "left out"
