"""Folders of metadata files at random: kinds, names, compression, line ends, columns, dirty rows, and damage."""

from __future__ import annotations

import datetime
import gzip
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

NAMES = (
    "part-0.parquet", "_part.parquet", ".part.parquet", "a:b+c%20.parquet", "m.csv", "m.tsv.gz", "ü.jsonl",
    "[x]{1..2}", "no extension", "m.json.zst", "two.txt",
)  # fmt: skip
URLS = ("http://a.example/1.jpg", "http://b.example/2.jpg?x=1,2", "https://ü.example/3", "  ", "", None, "no url")
CAPTIONS = (
    "a red door", 'a "quoted", door', "", None, "two\nlines", "\ttab", "Füße \u2028", "'", '"open', "\x85next\x0b\x0c",
    "nul \0 inside", "\ufeffmark", "a\r\nb", "x" * 70_000, "=1+1", "\U0001f6aa", "NULL", " ",
)  # fmt: skip
KINDS = ("parquet", "csv", "tsv", "json_lines", "json")
LATIN1, BOM = b"caf\xe9", b"\xef\xbb\xbf"
ROW_END = b"\x1e"
"""Stands at the end of each row of a text until its line end is drawn; captions have line feeds of their own."""
FURTHER: dict[str, Any] = {
    "size": {"width": 3},
    "tags": ["a", None],
    "when": datetime.datetime(2021, 3, 1, tzinfo=datetime.UTC),
    "bytes": b"\xff\0",
    "TEXT": "another",
}
"""Columns that nobody reads: a struct, a list, a date, bytes, a name that differs from another in its case alone."""


@dataclass(frozen=True, kw_only=True)
class MadeFile:
    """One file as it was made. `num_rows` is None when damage makes that unknowable."""

    name: str
    data: bytes
    num_rows: int | None


def write_folder(folder: Path, files: list[MadeFile]) -> str:
    """Write `files` into the empty folder `folder`; the pattern that names all of them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).write_bytes(file.data)
    return f"{folder}/*"


@st.composite
def metadata_folders(draw: st.DrawFn) -> list[MadeFile]:
    """One to four files of different names."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    return [_damage(draw, _make_file(draw, name)) for name in names]


def _make_file(draw: st.DrawFn, name: str) -> MadeFile:
    kind = draw(st.sampled_from(KINDS))
    pairs = st.tuples(st.sampled_from(URLS), st.sampled_from(CAPTIONS))
    rows = draw(st.lists(pairs, min_size=1, max_size=6))
    is_latin1 = draw(st.booleans())
    if kind == "parquet":
        further = draw(st.lists(st.sampled_from(sorted(FURTHER)), max_size=2, unique=True))
        kept = rows[: draw(st.sampled_from((len(rows), len(rows), 0)))]
        return MadeFile(name=name, data=_write_parquet(kept, is_latin1, further), num_rows=len(kept))
    data = WRITERS[kind](rows)
    if kind in ("csv", "tsv"):
        ends = draw(st.sampled_from((b"\n", b"\r\n", b"\n\n", b"\n \r\n")))
        data = b"".join(row + ends for row in data.split(ROW_END)[:-1])
    data = draw(st.sampled_from((b"", b"", BOM))) + data
    if draw(st.booleans()):
        data = data.removesuffix(b"\n")
    if is_latin1:
        data = data.replace(b"a red door", LATIN1)
    packed = draw(st.sampled_from(("plain", "gzip", "zstd")))
    if packed != "plain":
        data = gzip.compress(data) if packed == "gzip" else pa.compress(data, "zstd", asbytes=True)
    return MadeFile(name=name, data=data, num_rows=len(rows))


def _write_parquet(rows: list[tuple[Any, Any]], is_latin1: bool, further: list[str]) -> bytes:
    raw = [None if caption is None else caption.encode() for _, caption in rows]
    captions = pa.array([LATIN1 if is_latin1 and value == b"a red door" else value for value in raw], pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(captions), captions.buffers(), captions.null_count)
    columns = {"url": pa.array([url for url, _ in rows], pa.string()), "text": text}
    columns |= {name: pa.array([FURTHER[name]] * len(rows), pa.array([FURTHER[name]]).type) for name in further}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _write_delimited(rows: list[tuple[Any, Any]], delimiter: str) -> bytes:
    def field(value: str | None) -> str:
        return '"' + (value or "").replace('"', '""') + '"'

    lines = [delimiter.join(map(field, row)) for row in (("url", "text"), *rows)]
    return "".join(f"{line}{ROW_END.decode()}" for line in lines).encode()


def _as_objects(rows: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    return [{"url": url, "text": caption} for url, caption in rows]


WRITERS = {
    "csv": lambda rows: _write_delimited(rows, ","),
    "tsv": lambda rows: _write_delimited(rows, "\t"),
    "json_lines": lambda rows: "".join(json.dumps(row) + "\n" for row in _as_objects(rows)).encode(),
    "json": lambda rows: json.dumps(_as_objects(rows)).encode(),
}


def _damage(draw: st.DrawFn, file: MadeFile) -> MadeFile:
    """`file`, or a third of the time one that was cut, changed, replaced or lengthened."""
    data, place = file.data, draw(st.integers(0, len(file.data) - 1))
    changed = data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
    damaged = (data[:place], changed, b"<html>Not found</html>", b"", data + b"\0\xff", data[place:])
    chosen = draw(st.sampled_from([None] * 12 + list(range(len(damaged)))))
    return file if chosen is None else MadeFile(name=file.name, data=damaged[chosen], num_rows=None)
