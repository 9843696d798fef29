"""What a file is that holds no metadata, by its first bytes, and what would be taken in its place."""

from __future__ import annotations

import re

from curation.metadata.records import Kind

TAKEN = "parquet, CSV, TSV, a URL a line, JSON Lines and JSON are read, the texts also as gzip or zstd"
_AS_PARQUET = "write its table as parquet"
_AS_TEXT = "unpack it; gzip and zstd are read as they are"
_PICKLE = "a Python pickle, which can run anybody's code", _AS_PARQUET
_ADOPT = "`curate adopt` takes pictures that are there already"
BINARY: dict[bytes, tuple[str, str]] = {
    b"PARE": ("an encrypted parquet file", "decrypt it"),
    b"ARROW1": ("an Arrow IPC (Feather) file", _AS_PARQUET),
    b"FEA1": ("a Feather file", _AS_PARQUET),
    b"ORC": ("an ORC file", _AS_PARQUET),
    b"Obj\x01": ("an Avro file", _AS_PARQUET),
    b"SQLite format 3\0": ("an SQLite database", _AS_PARQUET),
    b"\x89HDF": ("an HDF5 file", _AS_PARQUET),
    b"\x93NUMPY": ("a NumPy array", _AS_PARQUET),
    b"PK\x03\x04": ("a zip archive (or a spreadsheet, or an .npz)", "unpack it, or save the sheet as CSV"),
    b"7z\xbc\xaf": ("a 7z archive", _AS_TEXT),
    b"BZh": ("compressed by bzip2", _AS_TEXT),
    b"\xfd7zXZ": ("compressed by xz", _AS_TEXT),
    b"\x04\x22\x4d\x18": ("compressed by lz4", _AS_TEXT),
    b"\xff\x06\x00\x00sNaPpY": ("compressed by snappy", _AS_TEXT),
    b"\xff\xfe": ("text in UTF-16", "convert it to UTF-8: iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("text in UTF-16", "convert it to UTF-8: iconv -f UTF-16 -t UTF-8"),
    b"\xff\xd8\xff": ("a JPEG picture", _ADOPT),
    b"\x89PNG": ("a PNG picture", _ADOPT),
    b"GIF8": ("a GIF picture", _ADOPT),
    b"%PDF": ("a PDF", "name the table that it was made of"),
    b"\x80\x03": _PICKLE,
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
}
"""How files that are no text begin → what they are, and what to do with them."""
TEXTS: dict[Kind, str] = {"delimited": "lines of text", "urls": "URLs", "json_lines": "JSON Lines", "json": "JSON"}
LEAST_BYTES_PER_STRAY = 20
MAX_CUT = 3
"""Bytes of a character that the end of a head may have cut."""
_TAR_MAGIC = slice(257, 262)
_MARKUP = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|rss|error)\b", re.IGNORECASE)
"""Captions may begin with other marks: Conceptual Captions has <PERSON>."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec"
_GIT_POINTER = re.compile(rb"\s*(\.\./)*\.git/annex/objects/")


def describe_refusal(path: str, head: bytes, *, compressed: bool) -> str | None:
    """The sentence for a file that begins with `head` (unpacked when it was `compressed`); None for text.

    Names play no part, so a page of HTML that was saved as .parquet is called what it is.
    """
    what = _find_kind(head, compressed)
    if what is None:
        return None
    kind, remedy = what
    return f"{path} is {kind}, no metadata: {remedy}. {TAKEN[0].upper()}{TAKEN[1:]}."


def _find_kind(head: bytes, compressed: bool) -> tuple[str, str] | None:
    if head.startswith(b"PAR1"):
        return "parquet inside of a compressed file", "unpack it, as parquet is compressed inside"
    if head[_TAR_MAGIC] == b"ustar":
        return ("a compressed tar" if compressed else "a tar"), "`curate adopt` takes webdataset tars"
    if _MARKUP.match(head):
        return "a page of HTML or XML (a server's answer in place of the file?)", "download it again"
    if head.startswith(_LFS_POINTER):
        return "a pointer of Git LFS in place of the file", "fetch the file: git lfs pull"
    if _GIT_POINTER.match(head):
        return "a pointer of git-annex in place of the file", "fetch the file: git annex get"
    if _is_text(head):
        return None
    known = next((found for magic, found in BINARY.items() if head.startswith(magic)), None)
    if known is not None or b"\0" not in head or _has_stray_zeros(head):
        return known
    return "binary, of a kind that is not known here", "write its table as parquet, or its text as UTF-8"


def _is_text(head: bytes) -> bool:
    try:
        head[: len(head) - MAX_CUT].decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _has_stray_zeros(head: bytes) -> bool:
    """Whether it is text with a zero or a byte of Latin-1 here and there, as crawls have them in captions.

    In UTF-16 every second byte may be zero, and packed bytes are hardly UTF-8.
    """
    num_broken = len(head) - len(head.decode(errors="ignore").encode())
    return (head.count(0) + num_broken) * LEAST_BYTES_PER_STRAY < len(head)


def describe_odd_name(path: str, kind: Kind) -> str:
    """A sentence before the one on missing columns, where the name of a text says parquet; elsewhere empty."""
    is_odd = kind != "parquet" and path.lower().endswith((".parquet", ".parq", ".pq"))
    return f"{path} is no parquet but {TEXTS[kind]}: download it again if it was parquet. " if is_odd else ""
