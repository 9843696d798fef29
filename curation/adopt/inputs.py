"""What adoption takes in, of whatever kind: a tar, some pictures of a folder, or a parquet file with pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from curation.adopt import folder, picture_files, picture_table
from curation.adopt.columns import FORMAT
from curation.adopt.picture_files import PictureFiles
from curation.adopt.picture_table import PictureTable
from curation.adopt.pictures import end_unit
from curation.adopt.rows import InputRows
from curation.adopt.shard import Shard
from curation.adopt.tar_samples import read_content
from curation.places import PICTURE_FOLDER
from curation.storage import Root
from curation.tables import listings_file

Input: TypeAlias = Shard | PictureFiles | PictureTable
TABLE = "picture_table"
"""The format of a parquet file with pictures, as plans record it."""


def read_rows(root: Root, item: Input) -> InputRows:
    """Every row of `item`. Raises UserError when nothing of it can be read, OSError as the file system does."""
    if isinstance(item, PictureFiles):
        return picture_files.read_rows(root, item)
    if isinstance(item, PictureTable):
        return picture_table.read_rows(root, item)
    return folder.read_rows(root, item)


def end_input(root: Root, unit: str, item: Input) -> None:
    """Read the pictures of `item` and publish the downloads of `unit`. Raises as `read_rows` does."""
    if isinstance(item, PictureFiles):
        end_unit(root, unit, picture_files.list_rows(root, unit, item.folder))
    elif isinstance(item, PictureTable):
        picture_table.end_unit(root, unit, item)
    else:
        end_unit(root, unit, folder.read_rows(root, item).table.to_pylist())


def list_files(item: Input) -> list[tuple[str, str]]:
    """What a later adoption knows `item` by, besides its path: each file of a folder, and its fingerprint."""
    return item.list_files() if isinstance(item, PictureFiles) else []


def describe_input(item: Input, written: Mapping[str, Any]) -> dict[str, Any]:
    """The record of `item` in a plan; `written` says what became of its rows."""
    name = FORMAT if isinstance(item, Shard) else PICTURE_FOLDER if isinstance(item, PictureFiles) else TABLE
    more = {"columns": dict(item.columns)} if isinstance(item, PictureTable) else {}
    return {
        "source": item.source,
        "path": item.path,
        "format": name,
        "fingerprint": item.fingerprint,
        "num_rows": written["rows"],
        "num_members": written["members"],
        **more,
    }


def parse_input(record: Mapping[str, Any]) -> Input:
    """The input that `describe_input` recorded, as far as its pictures are to be read."""
    if record.get("format") == PICTURE_FOLDER:
        return PictureFiles(source=record["source"], folder=record["path"])
    if record.get("format") == TABLE:
        return PictureTable(source=record["source"], path=record["path"], columns=record.get("columns", {}))
    return Shard(source=record["source"], path=record["path"])


def count_members(root: Root, unit: str, record: Mapping[str, Any]) -> int | None:
    """What `describe_input` recorded as members, counted again; None of an input that is not there any more.

    Raises UserError when it cannot be read.
    """
    item = parse_input(record)
    if isinstance(item, PictureFiles):
        return int(root.read_parquet(listings_file(unit), ["file"]).num_rows)
    if not root.exists(item.path):
        return None
    if isinstance(item, PictureTable):
        return picture_table.count_rows(root, item)
    return read_content(root, item.path).num_members
