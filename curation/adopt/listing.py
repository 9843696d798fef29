"""What a folder holds that can be adopted, and what in it cannot.

One rule for every folder, whatever stands in it: a tar is a shard, a parquet file without a tar of its name is a table
of pictures, any other file is a picture, or belongs to the picture whose name it has, or is a reject.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from curation.adopt.names import full_path, list_names
from curation.adopt.picture_files import PictureFile, find_pictures
from curation.adopt.picture_table import PictureTable, has_pictures
from curation.adopt.shard import SUFFIX, Shard
from curation.errors import UserError
from curation.storage import Root

PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".zip")
PARQUET, STATISTICS = ".parquet", "_stats.json"


@dataclass
class Listing:
    """Inputs of one folder in the order of their names, and a sentence for each file that cannot be one."""

    folder: str
    shards: list[Shard] = field(default_factory=list)
    tables: list[PictureTable] = field(default_factory=list)
    pictures: dict[str, PictureFile] = field(default_factory=dict)
    """Pictures that are files, by their path in the folder."""
    others: dict[str, int] = field(default_factory=dict)
    """Sizes of files that are no picture and belong to none."""
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The folder's name, which becomes the source of its rows."""
        return self.folder.rpartition("/")[2]


def list_folder(root: Root, folder: str, columns: Mapping[str, str], left_out: str = "") -> Listing:
    """What `folder` and the folders below it hold, without the file `left_out`.

    `columns` says which columns of parquet files are which. Raises UserError when there is no such folder, or nothing
    in it that could be adopted.
    """
    found = Listing(full_path(folder))
    root.admit(found.folder)
    names = list_names(root, found.folder)
    files = names.files
    if left_out.startswith(f"{found.folder}/"):
        files.pop(left_out[len(found.folder) + 1 :], None)
    found.refusals += names.refusals
    found.refusals += [
        f"{found.folder}/{name} is packed: pictures are read where they lie, so unpack it."
        for name in files
        if name.lower().endswith(PACKED)
    ]
    taken = {name for name in files if name.lower().endswith(PACKED)} | _take_shards(found, files)
    taken |= _take_tables(root, found, {name: files[name] for name in files if name not in taken}, columns)
    found.pictures, found.others = find_pictures(root, found.folder, {n: files[n] for n in files if n not in taken})
    if not (found.shards or found.tables or found.pictures or found.refusals):
        beside = f"; it has {len(files):,} other files" if files else ""
        raise UserError(
            f"{folder} holds no tar, no picture and no parquet file with pictures{beside}: there is nothing to adopt."
        )
    return found


def _take_shards(found: Listing, files: Mapping[str, int]) -> set[str]:
    """Add the tars among `files` to `found`; returns their names and those of the files that belong to them."""
    taken = set[str]()
    for name in files:
        if not name.lower().endswith(SUFFIX):
            continue
        stem = name[: -len(SUFFIX)]
        mine = (name, f"{stem}{PARQUET}", f"{stem}{STATISTICS}")
        sizes = tuple(files.get(one) for one in mine)
        path = f"{found.folder}/{name}"
        found.shards.append(Shard(source=found.source, path=path, num_bytes=sizes, file=name if "/" in name else ""))
        taken |= {one for one in mine if one in files}
    return taken


def _take_tables(root: Root, found: Listing, files: Mapping[str, int], columns: Mapping[str, str]) -> set[str]:
    """Add the parquet files among `files` to `found`; returns their names and those of the files that belong to them.

    img2dataset writes one beside each folder of pictures, too: its pictures are files, and it is left aside.
    """
    taken = set[str]()
    for name in files:
        stem = name.removesuffix(STATISTICS) if name.endswith(STATISTICS) else ""
        if stem and f"{stem}{PARQUET}" not in files:
            found.refusals.append(f"{found.folder}/{name} is there without {stem}.tar, which holds its pictures.")
            taken.add(name)
        if not name.lower().endswith(PARQUET):
            continue
        stem, path = name[: -len(PARQUET)], f"{found.folder}/{name}"
        taken |= {name, f"{stem}{STATISTICS}"} & set(files)
        if any(one.startswith(f"{stem}/") for one in files) and not has_pictures(root, path):
            found.notes.append(f"{path} has no pictures: those of {stem}/ are taken as files, its failures are lost.")
            continue
        found.tables.append(
            PictureTable(
                source=found.source, path=path, num_bytes=files[name], file=name if "/" in name else "", columns=columns
            )
        )
    return taken
