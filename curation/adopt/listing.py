"""What a folder holds that can be adopted, and what in it cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import fsspec

from curation.adopt.shard import Shard
from curation.errors import UserError
from curation.storage import Root

PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".zip")


@dataclass
class Listing:
    """Shards in the order of their names, and a sentence for each file that should be a shard and is none."""

    shards: list[Shard] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


def list_shards(root: Root, folder: str) -> Listing:
    """What `folder` holds. Raises UserError when there is no such folder, or nothing in it that could be adopted."""
    base = str(Path(folder).resolve()) if "://" not in folder else folder.rstrip("/")
    root.admit(base)
    files, others = _list_names(root, base)
    found = Listing()
    pipes = {name for name in others if name.endswith(".tar")}
    for name in sorted({_stem(name) for name in (*files, *pipes)} - {""}):
        sizes = tuple(files.get(f"{name}{suffix}") for suffix in (".tar", ".parquet", "_stats.json"))
        if sizes[0] is not None:
            found.shards.append(Shard(source=base.rpartition("/")[2], path=f"{base}/{name}.tar", num_bytes=sizes))
        elif f"{name}.tar" in pipes:
            found.refusals.append(f"{base}/{name}.tar is a folder, a pipe or a broken link, and no file.")
        else:
            beside = next(f"{name}{suffix}" for suffix in (".parquet", "_stats.json") if f"{name}{suffix}" in files)
            found.refusals.append(f"{base}/{beside} is there without {name}.tar, which holds its pictures.")
    for name in sorted(files):
        if name.endswith(PACKED):
            found.refusals.append(f"{base}/{name} is packed: pictures are read where they lie, so unpack it.")
    if not found.shards and not found.refusals:
        raise UserError(f"{folder} holds no NNNNN.tar: only img2dataset's webdataset output can be adopted.")
    return found


def _stem(name: str) -> str:
    """The name of the shard to which a file belongs, empty for other files."""
    return next((name.removesuffix(s) for s in (".tar", ".parquet", "_stats.json") if name.endswith(s)), "")


def _list_names(root: Root, base: str) -> tuple[dict[str, int], set[str]]:
    """The plain files directly in `base` with their sizes, links to files among them, and the names of all else."""
    if "://" not in base:
        if not Path(base).is_dir():
            raise UserError(f"There is no folder {base}: name one that img2dataset wrote.")
        entries = list(Path(base).iterdir())
        files = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        return files, {entry.name for entry in entries} - set(files)
    fs, inner = fsspec.core.url_to_fs(base, **root.options_for(base))
    if not fs.isdir(inner):
        raise UserError(f"There is no folder {base}: name one that img2dataset wrote.")
    listed = fs.ls(inner, detail=True)
    return {e["name"].rsplit("/", 1)[-1]: int(e["size"]) for e in listed if e["type"] == "file"}, set()
