"""The names of everything below a folder: files with their sizes, and what is no file that can be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fsspec

from curation.errors import UserError
from curation.storage import Root


@dataclass
class Names:
    """`files` are the sizes of files by their path below the folder, sorted; a link to a file is a file.

    `refusals` has a sentence for each name of what cannot be read.
    """

    files: dict[str, int] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)


def full_path(folder: str) -> str:
    """`folder` as adoption records it: a full path without links, or a URL without a slash at its end."""
    return str(Path(folder).resolve()) if "://" not in folder else folder.rstrip("/")


def list_names(root: Root, base: str) -> Names:
    """All that is below `base`, save the root itself. Raises UserError when there is no such folder."""
    if "://" in base:
        return _list_store(root, base)
    if not Path(base).is_dir():
        raise UserError(f"There is no folder {base}: name one with tars, pictures or parquet files.")
    found = Names()
    left_out = Path(root.path).resolve() if root.is_local else None
    for entry in _walk(base, left_out, found.refusals):
        wrong = _find_fault(entry)
        if wrong is not None:
            found.refusals.append(f"{_printable(entry.path)} {wrong}.")
            continue
        try:
            found.files[entry.path[len(base.rstrip("/")) + 1 :]] = entry.stat().st_size
        except FileNotFoundError:
            continue  # it went away while the folder was listed
    found.files = dict(sorted(found.files.items()))
    return found


def _walk(base: str, left_out: Path | None, refusals: list[str]) -> Iterator[os.DirEntry[str]]:
    """Every entry below `base` that is no folder; a folder that cannot be listed gets a sentence."""
    waiting = [base]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            refusals.append(f"{_printable(folder)} cannot be listed ({error.strerror}).")
            continue
        for entry in listed:
            if not entry.is_dir(follow_symlinks=False):
                yield entry
            elif left_out is None or Path(entry.path) != left_out:
                waiting.append(entry.path)


def _find_fault(entry: os.DirEntry[str]) -> str | None:
    """Why the file `entry` cannot be read, None when it can."""
    if not _is_text(entry.path):
        return "has a name that is no UTF-8, which no table can hold: rename it"
    if entry.is_symlink() and entry.is_dir():
        return "is a link to a folder, which may lead back: name the folder itself"
    if not entry.is_file():
        return "is a pipe, a device or a broken link, and no file"
    return None if os.access(entry.path, os.R_OK) else "may not be read by this account"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()


def _list_store(root: Root, base: str) -> Names:
    fs, inner = fsspec.core.url_to_fs(base, **root.options_for(base))
    if not fs.isdir(inner):
        raise UserError(f"There is no folder {base}: name one with tars, pictures or parquet files.")
    mine = "" if root.is_local else f"{root.path}/"
    listed = {name: int(entry["size"] or 0) for name, entry in fs.find(inner, detail=True).items()}
    start = len(inner.rstrip("/")) + 1
    return Names(files={n[start:]: s for n, s in sorted(listed.items()) if not (mine and n.startswith(mine))})
