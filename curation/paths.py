"""Which files a path of the recipe names: braces, wildcards, and names that other tools hide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import fsspec

from curation.errors import UserError
from curation.files import LOCAL

MAX_PATHS = 1_000_000
"""Paths that one pattern with braces may stand for."""
_WILDCARDS = set("*?[{")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MARKERS = re.compile(r"_SUCCESS|_(common_)?metadata|_(committed|started)_\d+|\..*\.crc")
"""Files without rows that Spark, Hadoop and Databricks put beside what they write."""


def expand_braces(pattern: str) -> list[str]:
    """Every path that `pattern` stands for: `{00000..00127}` counts, `{a,b}` lists; other braces stay as they are.

    Raises UserError when there are more than MAX_PATHS.
    """
    paths = [""]
    end = 0
    for braces in _BRACES.finditer(pattern):
        choices = list(_choices(braces[1])) or [braces[0]]
        if len(paths) * len(choices) > MAX_PATHS:
            raise UserError(f"{pattern} stands for more than {MAX_PATHS:,} paths: use a wildcard (*).")
        paths = [f"{path}{pattern[end : braces.start()]}{choice}" for path in paths for choice in choices]
        end = braces.end()
    return [f"{path}{pattern[end:]}" for path in paths]


def _choices(text: str) -> Iterator[str]:
    """What the inside of a pair of braces stands for; nothing when it is neither a range nor a list."""
    counted = _RANGE.fullmatch(text)
    if counted is None:
        yield from text.split(",") if "," in text else ()
        return
    first, last = int(counted[1]), int(counted[2])
    if abs(last - first) >= MAX_PATHS:
        raise UserError(f"{{{text}}} stands for more than {MAX_PATHS:,} numbers: use a wildcard (*).")
    step = 1 if last >= first else -1
    yield from (str(number).zfill(len(counted[1])) for number in range(first, last + step, step))


def find_listed(pattern: str, subject: str) -> list[str]:
    """The files that `pattern` names, or `pattern` itself when it has no character of patterns or is a web page's URL.

    So a plain path reaches its reader, which has a sentence of its own for a file that is not there. Raises UserError
    as `find_files` does, and for a store that cannot be asked.
    """
    if not _WILDCARDS & set(pattern) or pattern.startswith(("http://", "https://")):
        return [pattern]
    try:
        return find_files(pattern, subject)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{subject}: {pattern} cannot be looked up: {' '.join(str(error).split())}") from error


def find_folders(pattern: str) -> list[str]:
    """The folders that `pattern` names, sorted within each wildcard; `pattern` itself when it is no pattern.

    Raises UserError when one of its paths names no folder, and for a store that cannot be asked.
    """
    if not _WILDCARDS & set(pattern):
        return [pattern]
    try:
        fs, inner = file_system(pattern)
        if fs.exists(inner):
            return [pattern]
        found = [name for path in expand_braces(inner) for name in _match_folders(fs, path)]
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{pattern} cannot be looked up: {' '.join(str(error).split())}") from error
    return [name if fs is LOCAL else fs.unstrip_protocol(name) for name in found]


def _match_folders(fs: Any, path: str) -> list[str]:
    entries = {path: fs.info(path)} if fs.exists(path) else fs.glob(path, detail=True)
    folders = sorted(name.rstrip("/") for name, entry in entries.items() if entry["type"] == "directory")
    if not folders:
        raise UserError(f"Nothing matches {path} that is a folder: check the path.")
    return folders


def file_system(path: str) -> tuple[Any, str]:
    """The file system of `path` and its name there; a path without protocol is local, whatever its characters."""
    if "://" not in path:
        return LOCAL, path
    fs, inner = fsspec.core.url_to_fs(path)
    return fs, inner


def open_file(path: str) -> BinaryIO:
    """A seekable binary reader of `path`. Raises OSError."""
    fs, inner = file_system(path)
    return open(inner, "rb") if fs is LOCAL else fs.open(inner, "rb")


def find_files(full: str, subject: str) -> list[str]:
    """The files that `full` names, sorted within each wildcard; names that begin with `_` or `.` are files as others.

    Left out of wildcards are only folders and the empty marks that Spark and Hadoop leave. `subject` begins the
    sentence of an error. Raises UserError when nothing matches, or when a folder stands in place of a file.
    """
    fs, inner = file_system(full)
    paths = [inner] if fs.exists(inner) else expand_braces(inner)
    found = [name for path in paths for name in _match(fs, path, full, subject)]
    return [name if fs is LOCAL else fs.unstrip_protocol(name) for name in found]


def _match(fs: Any, path: str, full: str, subject: str) -> list[str]:
    kinds = {path: fs.info(path)["type"]} if fs.exists(path) else _expand_wildcards(fs, path)
    if not kinds:
        named = full if path == file_system(full)[1] else f"{path} of {full}"
        raise UserError(f"{subject}: nothing matches {named}; check the path.")
    for name, kind in kinds.items():
        if kind == "directory":
            raise UserError(f"{subject}: {name} is a folder; name the files in it, for example {name}/*.parquet.")
    return sorted(kinds)


def _expand_wildcards(fs: Any, path: str) -> dict[str, str]:
    """Name and kind (file, directory) of all that `path` matches; of a last part of stars alone, the files."""
    if not _WILDCARDS & set(path):
        return {}
    listed = {name: info["type"] for name, info in fs.glob(path, detail=True).items() if not _is_marker(name)}
    if path.rpartition("/")[2].strip("*"):
        return listed
    return {name: kind for name, kind in listed.items() if kind != "directory"}


def _is_marker(name: str) -> bool:
    return _MARKERS.fullmatch(name.rpartition("/")[2]) is not None
