"""The captions of a folder of pictures from one file: CSV, TSV, JSON Lines, JSON or parquet, a picture a row.

Several rows may name one picture: each is a row of its own, with the same picture.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from curation.errors import UserError
from curation.metadata import parquet
from curation.metadata.content import recognise
from curation.metadata.records import Layout, read_records
from curation.metadata.text_columns import simplify
from curation.places import is_elsewhere
from curation.schema import RejectReason

IMAGE = ("file_name", "filename", "file", "image", "image_path", "img_path", "filepath", "path", "image_file", "img")
"""Names of columns that hold the name of a picture, the likeliest first."""
CAPTION = ("caption", "text", "captions", "texts", "txt", "title", "alt_text", "alt", "description", "sentence")
URL = ("url", "image_url")
KNOWN = {"image": IMAGE, "caption": CAPTION, "url": URL}
"""What `--columns` may name, and the names of columns that are found without it."""


def parse_columns(text: str) -> dict[str, str]:
    """What `--columns image=NAME,caption=NAME` says. Raises UserError for anything else."""
    found = {}
    for part in text.split(",") if text else ():
        target, equals, name = part.partition("=")
        if target.strip() not in KNOWN or not equals or not name.strip():
            raise UserError(f"--columns has {part!r}: write image=NAME,caption=NAME,url=NAME, or some of the three.")
        found[target.strip()] = name.strip()
    return found


@dataclass(frozen=True, kw_only=True)
class CaptionLine:
    """One row of the file: `row` is its number, `reason` why it is no row of a picture, if it is none."""

    file: str
    row: int
    name: str | None
    caption: str | None
    url: str | None
    reason: str | None = None


@dataclass(kw_only=True)
class Captions:
    """The rows of the file by the name of their picture, and those that name none."""

    path: str = ""
    of_picture: dict[str, list[CaptionLine]] = field(default_factory=dict)
    malformed: list[CaptionLine] = field(default_factory=list)

    def take(self, folder: str, names: Collection[str]) -> dict[str, tuple[CaptionLine, ...]]:
        """Take out the rows of the pictures `names` of `folder`, by picture.

        A row names a picture by its path in the folder, by its full path, or by its bare name where one picture alone
        has that name.
        """
        bare: dict[str, list[str]] = {}
        for name in names:
            bare.setdefault(name.rpartition("/")[2], []).append(name)
        found: dict[str, list[CaptionLine]] = {}
        for named in list(self.of_picture):
            picture = _find_picture(named, folder, names, bare)
            if picture is not None:
                found.setdefault(picture, []).extend(self.of_picture.pop(named))
        return {name: tuple(sorted(lines, key=lambda line: line.row)) for name, lines in found.items()}

    def take_strays(self) -> tuple[CaptionLine, ...]:
        """Take out what is left: rows of pictures that are not there, and rows that are none."""
        missing = [line for lines in self.of_picture.values() for line in lines]
        strays = sorted([*missing, *self.malformed], key=lambda line: line.row)
        self.of_picture, self.malformed = {}, []
        return tuple(strays)


def _find_picture(named: str, folder: str, names: Collection[str], bare: Mapping[str, Sequence[str]]) -> str | None:
    inside = named.removeprefix("file://") if is_elsewhere(named) else f"{folder}/{named.removeprefix('./')}"
    relative = inside[len(folder) + 1 :] if inside.startswith(f"{folder}/") else None
    if relative in names:
        return relative
    alike = bare.get(named, ())
    return alike[0] if len(alike) == 1 else None


def read_captions(path: str, columns: Mapping[str, str]) -> Captions:
    """Every row of the file at `path`. Raises UserError when it cannot be read, or has no such columns."""
    layout = recognise(path, "auto")
    names = parquet.look_into(path)[0].names if layout.kind == "parquet" else list(layout.names)
    chosen = _choose(path, names, columns)
    found, row = Captions(path=path), 0
    file = path.rpartition("/")[2]
    for batch, malformed in _read_batches(path, layout, list(dict.fromkeys(chosen.values()))):
        values = {target: _decode(batch.column(name)) for target, name in chosen.items()}
        for number in range(len(batch)):
            texts = {target: column[0][number] for target, column in values.items()}
            is_text = not any(column[1] is not None and column[1][number] for column in values.values())
            reason = RejectReason.MALFORMED if malformed[number] else None if is_text else RejectReason.NOT_TEXT
            line = CaptionLine(
                file=file,
                row=row + number,
                name=texts["image"],
                caption=texts["caption"],
                url=texts.get("url"),
                reason=reason.value if reason else None,
            )
            if line.name:
                found.of_picture.setdefault(line.name, []).append(line)
            else:
                found.malformed.append(line)
        row += len(batch)
    return found


def _choose(path: str, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The file's own columns for `image`, `caption` and, where it has one, `url`."""
    chosen = {}
    for target, known in KNOWN.items():
        wanted = (columns[target],) if target in columns else known
        found = next((name for one in wanted for name in names if name.lower() == one.lower()), None)
        if found is not None:
            chosen[target] = found
        elif target in columns:
            raise UserError(f"{path} has no column {columns[target]}, which --columns names; it has {_say(names)}.")
        elif target != "url":
            what = "the names of pictures" if target == "image" else "captions"
            raise UserError(
                f"{path} has no column for {what} (it has {_say(names)}): say which it is by --columns {target}=NAME."
            )
    return chosen


def _say(names: Sequence[str]) -> str:
    return ", ".join(" ".join(name.split())[:40] for name in names[:20]) or "none"


def _read_batches(path: str, layout: Layout, wanted: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, list[bool]]]:
    if layout.kind != "parquet":
        yield from read_records(path, layout, wanted)
        return
    groups = range(len(parquet.look_into(path)[1]))
    for batch in parquet.read_columns(path, wanted, groups):
        yield batch, [False] * len(batch)


def _decode(column: pa.Array) -> tuple[list[str | None], np.ndarray | None]:
    """The texts of `column`, and which of its values are no UTF-8."""
    values, wrong = simplify(column)
    return values.cast(pa.string()).to_pylist(), wrong
