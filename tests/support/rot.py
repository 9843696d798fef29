"""What time, disks and people do to the files of a root, drawn from a seed: each change and the damaged file."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Change = Callable[[random.Random, Path, Path], Path]
"""Damages one file of the folder (second) and returns its path; the third folder is the root at an earlier time."""


def list_files(root: Path) -> list[Path]:
    """Every file whose loss or change matters: what lies in logs and scratch does not."""
    without = ("logs", ".scratch")
    found = (path for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if path.relative_to(root).parts[0] not in without)


def pick(draw: random.Random, root: Path) -> Path:
    """One file: first its kind is drawn, so that small tables are hit as often as large ones."""
    kinds: dict[str, list[Path]] = {}
    for path in list_files(root):
        relative = path.relative_to(root)
        kinds.setdefault(f"{relative.parts[0]}{path.suffix}{path.name == 'current.json'}", []).append(path)
    return draw.choice(kinds[draw.choice(sorted(kinds))])


def flip_bit(draw: random.Random, root: Path, _: Path) -> Path:
    """One bit of one file is another."""
    path = pick(draw, root)
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return path


def delete(draw: random.Random, root: Path, _: Path) -> Path:
    """One file is gone."""
    path = pick(draw, root)
    path.unlink()
    return path


def cut_short(draw: random.Random, root: Path, _: Path) -> Path:
    """One file ends too early."""
    path = pick(draw, root)
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])
    return path


def swap(draw: random.Random, root: Path, _: Path) -> Path:
    """Two files have changed their places."""
    while True:
        one = pick(draw, root)
        others = [path for path in list_files(root) if path.suffix == one.suffix and path.parent == one.parent]
        other = draw.choice(others)
        if one.read_bytes() != other.read_bytes():
            break
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return one


def age(draw: random.Random, root: Path, earlier: Path) -> Path:
    """One file is as it was at an earlier time, when it was right too."""
    while True:
        path = pick(draw, root)
        before = earlier / path.relative_to(root)
        if before.exists() and before.read_bytes() != path.read_bytes():
            shutil.copyfile(before, path)
            return path


def link(draw: random.Random, root: Path, _: Path) -> Path:
    """A link to a copy stands in the place of one file."""
    path = pick(draw, root)
    elsewhere = root.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return path


def add_foreign(draw: random.Random, root: Path, _: Path) -> Path:
    """A file that no stage has made, a copy of another one, stands beside those of a table."""
    files = [path for path in list_files(root) if path.suffix == ".parquet" and path.parent.name != "sums"]
    path = draw.choice(files)
    foreign = path.with_name(path.name.replace("0a1b2c3d", "0a1b2c3e").replace("part-00000", "part-00009"))
    shutil.copyfile(path, foreign)
    return foreign


CHANGES: tuple[Change, ...] = (flip_bit, flip_bit, flip_bit, delete, cut_short, swap, age, link, add_foreign)
"""A flipped bit is what happens by itself; the others are what people and copies do."""


def flip_in_pages(path: Path) -> None:
    """Flip one bit among the pages of a parquet file or the rows of an array; size and date stay as they were."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 5] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
