"""The samples of a tar, by webdataset's own rule: members whose names agree up to the first dot are one sample."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import BinaryIO

from curation.adopt.caption_columns import MAX_CAPTIONS
from curation.adopt.records import MAX_JSON_BYTES, MAX_TEXT_BYTES, TEXTS, Record, parse_record
from curation.adopt.tar import DamagedTarError, recognise_compression, walk
from curation.errors import UserError
from curation.images.probe import PictureError, picture_format
from curation.shards import Member
from curation.storage import Root

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "jfif", "bmp", "tif", "tiff", "avif", "heic")
RARE_PICTURES = ("jpe", "pjpeg", "pjp", "heif", "jxl", "jp2", "ico", "svg")
KNOWN = (*PICTURES, *RARE_PICTURES)
SNIFFED_BYTES = 1024
_KEY = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)
"""webdataset's `base_plus_ext`."""


@dataclass
class TarSample:
    """The plain files of one sample by extension, in lower case; a name that comes twice begins another sample."""

    key: str
    files: dict[str, Member] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TarContent:
    """What a tar holds. `damage` says where and why reading stopped before its end."""

    samples: list[TarSample]
    num_members: int
    damage: str | None = None


def split_name(name: str) -> tuple[str, str]:
    """The key and the extension of a member; a name without dot, or one that begins with a dot, is a key alone."""
    found = _KEY.fullmatch(name.removeprefix("./"))
    return (found[1], found[2].lower()) if found else (name.removeprefix("./"), "")


def read_content(root: Root, path: str) -> TarContent:
    """The samples of the tar at `path`: of a torn one those before the damage.

    Raises UserError when nothing of it can be read, and OSError as the file system does.
    """
    num_bytes = root.size(path)
    with root.open(path) as f:
        start = f.read(262)
        if num_bytes == 0:
            raise UserError(f"{path} is empty: copy it again.")
        return _group(f, path, num_bytes, start)


def _group(f: BinaryIO, path: str, num_bytes: int, start: bytes) -> TarContent:
    samples, current = list[TarSample](), dict[str, TarSample]()
    num_members, damage = 0, None
    try:
        for entry in walk(f, num_bytes):
            num_members += 1
            key, extension = split_name(entry.name)
            sample = current.get(key)
            if sample is None or extension in sample.files:
                sample = current[key] = TarSample(key)
                samples.append(sample)
            if entry.member is not None:
                sample.files[extension] = entry.member
    except DamagedTarError as error:
        damage = f"{path} is damaged: {error}"
    if damage and not num_members:
        kind = recognise_compression(start)
        if kind:
            raise UserError(f"{path} is {kind} and no tar, whose pictures can be read where they lie: unpack it.")
        raise UserError(f"{damage}: copy it again.")
    return TarContent(samples=samples, num_members=num_members, damage=damage)


def find_pictures(files: dict[str, Member]) -> list[Member]:
    """Pictures of one sample by their names, those with a plain extension first.

    The kind of a member is what follows the last dot of its name.
    """
    ends = {extension: extension.rpartition(".")[2] for extension in files}
    chosen = sorted((e for e in files if ends[e] in KNOWN), key=lambda e: (e != ends[e], KNOWN.index(ends[e]), e))
    return [files[extension] for extension in chosen]


def sniff_pictures(f: BinaryIO, files: dict[str, Member]) -> list[Member]:
    """Like `find_pictures`, and of a sample without known extensions the first member that begins as a picture does."""
    named = find_pictures(files)
    if named:
        return named
    return next(([member] for member in files.values() if _is_picture(f, member)), [])


def _is_picture(f: BinaryIO, member: Member) -> bool:
    f.seek(member.offset)
    return begins_as_picture(f.read(min(member.size, SNIFFED_BYTES)))


def begins_as_picture(data: bytes) -> bool:
    """Whether `data`, the first bytes of a file, are those of a picture."""
    try:
        picture_format(data)
    except PictureError:
        return False
    return True


def read_record(f: BinaryIO, files: dict[str, Member], picture: Member | None) -> Record:
    """What the JSON and the texts of a sample say: of several JSONs the one that is called as the picture is, of the
    texts all, such a one first.
    """
    stem = split_name(picture.name)[1].rpartition(".")[0] if picture else ""
    said = [_read(f, member) for member in _choose(files, ("json",), stem, MAX_JSON_BYTES)[:1]]
    texts = [_read(f, member) for member in _choose(files, TEXTS, stem, MAX_TEXT_BYTES)[:MAX_CAPTIONS]]
    return parse_record(said[0] if said else None, texts)


def _choose(files: dict[str, Member], kinds: tuple[str, ...], stem: str, max_bytes: int) -> list[Member]:
    """The members of `kinds` of at most `max_bytes`: those called as `stem` first, then those without a middle name."""
    ends = {extension: extension.rpartition(".") for extension in files if files[extension].size <= max_bytes}
    fitting = [e for e in ends if ends[e][2] in kinds]
    fitting.sort(key=lambda e: (ends[e][0] != stem, ends[e][0] != "", kinds.index(ends[e][2]), e))
    return [files[extension] for extension in fitting]


def _read(f: BinaryIO, member: Member) -> bytes:
    f.seek(member.offset)
    return f.read(member.size)
