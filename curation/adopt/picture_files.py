"""Pictures that are files of their own, with captions in files of the same name or in one file for all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote_from_bytes

import pyarrow as pa

from curation.adopt.captions import CaptionLine
from curation.adopt.columns import choose, normalise
from curation.adopt.records import MAX_JSON_BYTES, MAX_TEXT_BYTES, TEXTS, Record, parse_record
from curation.adopt.rows import SUCCESS, AdoptedRow, InputRows, add_origins, add_places
from curation.adopt.tar_samples import KNOWN, SNIFFED_BYTES, begins_as_picture
from curation.errors import UserError
from curation.schema import RejectReason
from curation.storage import Root, fingerprint
from curation.tables import samples_file

FILES_PER_UNIT = 10_000
BESIDE = (*TEXTS, "json")
"""Extensions of files that say something of the picture of the same name."""


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A picture by its path in the folder; `beside` are the files that belong to it, with their sizes."""

    name: str
    num_bytes: int
    beside: tuple[tuple[str, int], ...] = ()
    lines: tuple[CaptionLine, ...] = ()
    """Its rows in the file of captions; without any, the files beside it count."""

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.num_bytes, [list(one) for one in self.beside]])


@dataclass(frozen=True, kw_only=True)
class PictureFiles:
    """Some pictures of one folder, which become a unit, with `others`, the files that belong to no picture.

    `strays` are the rows of the file of captions that name no picture.
    """

    source: str
    folder: str
    pictures: tuple[PictureFile, ...] = ()
    others: tuple[tuple[str, int], ...] = ()
    strays: tuple[CaptionLine, ...] = ()

    @property
    def path(self) -> str:
        return self.folder

    @property
    def file_name(self) -> str:
        return self.folder.rpartition("/")[2]

    @property
    def fingerprint(self) -> str:
        lines = [[line.row, line.name, line.caption, line.url] for one in self.pictures for line in one.lines]
        strays = [[line.row, line.name] for line in self.strays]
        return fingerprint([self.list_files(), lines, strays])

    def list_files(self) -> list[tuple[str, str]]:
        """Everything that is accounted for here, by name, and a fingerprint of each."""
        files = [(one.name, one.fingerprint) for one in self.pictures]
        files += [(name, fingerprint([num_bytes])) for name, num_bytes in self.others]
        return files + [(name_stray(line), fingerprint([line.name])) for line in self.strays]


def name_stray(line: CaptionLine) -> str:
    """How a row that names no picture is remembered."""
    return f"{line.file}#{line.row}"


def find_pictures(root: Root, folder: str, files: Mapping[str, int]) -> tuple[dict[str, PictureFile], dict[str, int]]:
    """The pictures among `files` with what belongs to them, and the files that belong to none, both by name.

    A picture has a known extension, or begins as one does. A file belongs to it that has its name up to the last dot,
    or its whole name and a further extension (`a.jpg`, `a.txt`, `a.jpg.json`).
    """
    named = {name for name in files if _split(name)[1] in KNOWN}
    _, others = _group(files, named)
    pictures = named | {name for name in others if _is_picture(root, folder, name, files[name])}
    beside, others = _group(files, pictures)
    found = {}
    for name in sorted(pictures):
        mine = [one for owner in sorted({_split(name)[0], name}) for one in beside.get(owner, ())]
        found[name] = PictureFile(name=name, num_bytes=files[name], beside=tuple((one, files[one]) for one in mine))
    return found, {name: files[name] for name in others}


def _split(name: str) -> tuple[str, str]:
    """A path up to its last dot, and its extension in lower case; a name without dot, or that begins with it, whole."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.rpartition(".")
    return (f"{folder}{slash}{stem}", extension.lower()) if stem else (name, "")


def _group(files: Mapping[str, int], pictures: Set[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The files that are no picture, by the stem or the name of the picture to which they belong, and the others."""
    stems = {_split(name)[0] for name in pictures} | pictures
    beside: dict[str, list[str]] = {}
    others = list[str]()
    for name in files:
        if name not in pictures:
            owner = _split(name)[0]
            (beside.setdefault(owner, []) if owner in stems else others).append(name)
    return beside, others


def _is_picture(root: Root, folder: str, name: str, num_bytes: int) -> bool:
    if num_bytes == 0 or _split(name)[1] in BESIDE:
        return False
    try:
        return begins_as_picture(root.read_bytes(f"{folder}/{name}", 0, min(num_bytes, SNIFFED_BYTES)))
    except (OSError, UserError):
        return False  # it went away, or became something else


def split_into_units(
    source: str, folder: str, pictures: Sequence[PictureFile], others: Mapping[str, int], strays: Sequence[CaptionLine]
) -> list[PictureFiles]:
    """The files as units of FILES_PER_UNIT pictures, in the order of their names; the first has all else."""
    starts = range(0, max(1, len(pictures)), FILES_PER_UNIT)
    parts = [tuple(pictures[start : start + FILES_PER_UNIT]) for start in starts]
    return [
        PictureFiles(
            source=source,
            folder=folder,
            pictures=part,
            others=tuple(sorted(others.items())) if number == 0 else (),
            strays=tuple(strays) if number == 0 else (),
        )
        for number, part in enumerate(parts)
        if part or others or strays
    ]


def read_rows(root: Root, item: PictureFiles) -> InputRows:
    """A row for each picture, or for each row of the file of captions that names it; the others are refused."""
    rows = [_describe_file(root, item.folder, one) for one in item.pictures if not one.lines]
    rows += [_describe_line(line, one.name) for one in item.pictures for line in one.lines]
    rows += [_Row(RejectReason.NO_PICTURE.value, name, 0) for name, _ in item.others]
    rows += [_Row(line.reason or RejectReason.NO_PICTURE.value, line.file, line.row) for line in item.strays]
    names = sorted({name for row in rows for name in row.values} | {"url", "caption", "key", "status"})
    chosen = choose(pa.schema([(name, pa.string()) for name in names]), item.folder)
    # A later adoption knows a picture by its path; an identifier in the file beside it may be any.
    chosen["source_id"] = ("key",)
    wanted = sorted({name for chosen_names in chosen.values() for name in chosen_names})
    columns = {name: pa.array([row.values.get(name) for row in rows], pa.string()) for name in wanted}
    urls = [file_url(f"{item.folder}/{row.picture}") if row.picture else None for row in rows]
    places = [(f"{item.folder}/{row.picture}", 0, None) if row.picture else (None, None, None) for row in rows]
    table = add_places(normalise(columns, chosen, urls, [row.refused for row in rows]), places)
    table = add_origins(table, [row.file for row in rows], [row.number for row in rows])
    return InputRows(table=table, num_members=len(item.list_files()))


class _Row(NamedTuple):
    """A row of samples or rejects: why it is refused, if it is, the file and the number that rejects name it by."""

    refused: str | None
    file: str
    number: int
    picture: str | None = None
    values: Mapping[str, str | None] = {}


def _describe_file(root: Root, folder: str, one: PictureFile) -> _Row:
    record = _read_record(root, folder, one)
    refused = None if record.is_text else RejectReason.NOT_TEXT.value
    return _Row(refused, one.name, 0, one.name, {**record.values, "key": one.name, "status": SUCCESS})


def _describe_line(line: CaptionLine, name: str) -> _Row:
    values = {"url": line.url, "caption": line.caption, "key": name, "status": SUCCESS}
    return _Row(line.reason, line.file, line.row, name, values)


def _read_record(root: Root, folder: str, one: PictureFile) -> Record:
    """What the files beside a picture say: its JSON, then its texts."""
    objects = _read_beside(root, folder, one, ("json",), MAX_JSON_BYTES)
    return parse_record(next(objects, None), list(_read_beside(root, folder, one, TEXTS, MAX_TEXT_BYTES)))


def _read_beside(root: Root, folder: str, one: PictureFile, kinds: Sequence[str], max_bytes: int) -> Iterator[bytes]:
    """The bytes of the files of `kinds` beside a picture, of at most `max_bytes`, the likeliest first."""
    fitting = [name for name, num_bytes in one.beside if _split(name)[1] in kinds and num_bytes <= max_bytes]
    for name in sorted(fitting, key=lambda name: (kinds.index(_split(name)[1]), len(name))):
        # It may have gone away since the folder was listed.
        with contextlib.suppress(OSError, UserError):
            yield root.read_bytes(f"{folder}/{name}", 0, max_bytes)


def file_url(path: str) -> str:
    """The URL of a file, as Python's `Path.as_uri` gives it; the URL of an object of a store is its own."""
    return path if "://" in path else f"file://{quote_from_bytes(os.fsencode(path))}"


def list_rows(root: Root, unit: str, folder: str) -> Iterator[AdoptedRow]:
    """Where the picture of each row of `unit` lies: what the table of samples says is enough to read it."""
    table = root.read_parquet(samples_file(unit), ["uid", "source_id"])
    for uid, name in zip(table["uid"].to_pylist(), table["source_id"].to_pylist(), strict=True):
        path = f"{folder}/{name}"
        yield {
            "uid": uid,
            "key": name,
            "status": SUCCESS,
            "error_message": None,
            "sha256": None,
            "original_width": None,
            "original_height": None,
            "shard": path,
            "offset": 0,
            "size": _find_size(root, path),
        }


def _find_size(root: Root, path: str) -> int:
    """Bytes of the file as it is now; 0 when it is gone, which is found when it is read."""
    try:
        return root.size(path)
    except OSError:
        return 0
