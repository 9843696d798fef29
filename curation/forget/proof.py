"""The proof: every file of a root is read, and nothing of the forgotten rows is found in it.

Files are searched as they lie. Besides that, columns of text of parquet files are decoded, members of tars are compared
with the pictures, and rows of arrays with the vectors. What rows that stay have in common with a forgotten one (the
same picture, URL or caption) is not looked for, and counted.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.files import SCRATCH
from curation.forget.needles import Needles, make_byte_needles, make_needles
from curation.forget.pending import FOLDER, Looked, Pending
from curation.npy import parse_array
from curation.progress import bar
from curation.shards import index
from curation.storage import Root
from curation.tables import embedding_tables

CHUNK_BYTES = 4 << 20
PICTURE, VECTOR = "picture ", "vector "
"""Begin the names of what is known by its hash."""
UNREAD = "unread"
"""Stands among what a file holds when it cannot be decoded to its end, so that nothing is proven of it."""
PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00")
"""What gzip, zstd, bzip2 and xz files begin with."""
_BYTES = " (bytes)"
"""Ends the name of a column that holds no text."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was read and found. `found` maps a file to how many things stand in it; nothing says which.

    A file that could not be decoded to its end is in `unread`, and nothing is proven of it.
    """

    num_files: int
    num_bytes: int
    found: dict[str, int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    """Those of the files whose very names say something."""
    num_shared: dict[str, int] = field(default_factory=dict)
    """By kind: what rows that stay have in common with forgotten ones."""

    @property
    def holds(self) -> bool:
        """Whether every file was read, and nothing found."""
        return not self.found and not self.unread


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is looked for: texts, bytes of pictures outside of tars, and the hashes of pictures and vectors."""

    texts: Needles
    pieces: Needles
    hashes: frozenset[str]


def prove_removal(root: Root, pending: Pending, own_log: str) -> Proof:
    """Read every file of `root` but those of the removal itself. Its `own_log` is searched and not counted."""
    looked, files = pending.looked, list(list_root_files(root))
    every = make_wanted(looked)
    staying = [rel for rel in files if rel.startswith(("samples/", "downloads/"))]
    shared = set[str]().union(*_scan_files(root, staying, every).values()) - {*looked.uids, UNREAD}
    found = _scan_files(root, files, _leave_out(every, looked, shared))
    counted = [rel for rel in files if rel != own_log]
    return Proof(
        num_files=len(counted),
        num_bytes=sum(map(root.size, counted)),
        found={rel: len(names - {UNREAD}) for rel, names in sorted(found.items()) if names - {UNREAD}},
        unread=tuple(rel for rel, names in sorted(found.items()) if UNREAD in names),
        hidden=frozenset(rel for rel in files if every.texts.find(rel.encode(errors="surrogateescape"))),
        num_shared={"texts": len(shared & {*looked.texts}), "pictures": len(shared & {*looked.pictures})},
    )


def make_wanted(looked: Looked) -> Wanted:
    """Everything that `looked` names."""
    return Wanted(
        texts=make_needles([*looked.uids, *looked.texts, *looked.sums]),
        pieces=make_byte_needles(looked.pieces),
        hashes=frozenset([*(PICTURE + one for one in looked.pictures), *(VECTOR + one for one in looked.vectors)]),
    )


def _leave_out(wanted: Wanted, looked: Looked, shared: set[str]) -> Wanted:
    """`wanted` without what is `shared` with rows that stay; bytes go with the picture that they are of."""
    pieces = [piece for piece, sums in looked.pieces.items() if shared & {*sums}]
    hashes = wanted.hashes - {PICTURE + one for one in shared}
    return Wanted(texts=wanted.texts.without(shared), pieces=wanted.pieces.without(pieces), hashes=hashes)


def list_root_files(root: Root) -> Iterator[str]:
    """Every file below the root, but those of removals and the leases of drivers."""
    prefix = f"{root.path}/"
    for path in sorted(root.fs.find(root.path)):
        rel = path.removeprefix(prefix)
        if not rel.startswith((f"{FOLDER}/", f"{SCRATCH}/leases/")):
            yield rel


def _scan_files(root: Root, files: list[str], wanted: Wanted) -> dict[str, set[str]]:
    """File → the names of what stands in it."""
    tables = tuple(f"{table}/" for table in embedding_tables(root))
    with (
        ThreadPoolExecutor(root.count_readers(os.cpu_count() or 1)) as pool,
        bar(len(files), "prove", "file") as progress,
    ):
        found = {}
        scans = pool.map(lambda rel: scan_file(root, rel, wanted, rel.startswith(tables)), files)
        for rel, names in zip(files, scans, strict=True):
            found[rel] = names
            progress.update()
        return found


def scan_file(root: Root, rel: str, wanted: Wanted, is_embedding: bool = False) -> set[str]:
    """The names of what stands in the file `rel`. Of a table's own arrays, the uids beside them say whose rows are."""
    found = wanted.texts.find(rel.encode(errors="surrogateescape"))
    if rel.endswith(".tar"):
        return found | _scan_bytes(root, rel, [wanted.texts]) | _scan_members(root, rel, wanted)
    found |= _scan_bytes(root, rel, [wanted.texts, wanted.pieces])
    if rel.endswith(".parquet"):
        found |= _scan_table(root, rel, wanted)
    elif rel.endswith(".npy") and not is_embedding:
        found |= _scan_array(root, rel, wanted.hashes)
    elif _is_packed(root, rel):
        found.add(UNREAD)
    return found


def _is_packed(root: Root, rel: str) -> bool:
    """Whether the bytes of a file say nothing about what is in it."""
    with root.open(rel) as f:
        if f.read(8).startswith(PACKED):
            return True
        f.seek(0)
        try:
            with zipfile.ZipFile(f) as packed:
                return any(member.compress_type != zipfile.ZIP_STORED for member in packed.infolist())
        except zipfile.BadZipFile:
            return False
        except NotImplementedError:  # of a newer version of the format, in which nothing can be looked for
            return True


def _scan_bytes(root: Root, rel: str, several: list[Needles]) -> set[str]:
    found, before, longest = set[str](), b"", max(needles.longest for needles in several)
    with root.open(rel) as f:
        while chunk := f.read(CHUNK_BYTES):
            data = before + chunk
            found = found.union(*(needles.find(data) for needles in several))
            before = data[-longest:] if longest else b""
    return found


def _scan_table(root: Root, rel: str, wanted: Wanted) -> set[str]:
    """Every value of text of a parquet file."""
    found = set[str]()
    short = pa.array(sorted(wanted.texts.values), pa.string())
    try:
        with root.open(rel) as f:
            file = pq.ParquetFile(f, pre_buffer=False)  # files are read side by side: they need no threads of their own
            for number in range(file.num_row_groups):
                for name, column in _list_texts(file.read_row_group(number, use_threads=False)):
                    for chunk in column.chunks:
                        found |= wanted.texts.find(data := _join(chunk)) | wanted.pieces.find(data)
                    if len(short) and ("caption" in name or "url" in name) and not name.endswith(_BYTES):
                        found |= set(column.filter(pc.is_in(column, short)).unique().to_pylist())
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) is not None:  # a disk's or a store's answer says nothing about the file
            raise
        return found | {UNREAD}
    return found


def _list_texts(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """The columns of text and bytes, those inside of lists and structures too."""
    for name in table.column_names:
        yield from _flatten(name, table[name])


def _flatten(name: str, column: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _flatten(name, column.cast(kind.value_type))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _flatten(name, pc.list_flatten(column))
    elif pa.types.is_struct(kind):
        for field_of, inner in zip(kind, column.flatten(), strict=True):
            yield from _flatten(f"{name}.{field_of.name}", inner)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield name, column
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        yield f"{name}{_BYTES}", column


def _join(values: pa.Array) -> bytes:
    """All `values` one behind the other, as bytes, each followed by a zero."""
    present = values.drop_null().to_pylist()
    return b"\0".join(one.encode() if isinstance(one, str) else one for one in present)


def _scan_members(root: Root, rel: str, wanted: Wanted) -> set[str]:
    found = set[str]()
    try:
        for member in index(root, rel):
            data = root.read_bytes(rel, member.offset, member.size)
            found |= {PICTURE + hashlib.sha256(data).hexdigest()} & wanted.hashes
            if member.extension == "txt" and len(data) < 2 * CHUNK_BYTES:
                found |= {data.decode(errors="replace")} & wanted.texts.values
    except UserError:  # it is no whole tar, and nothing in it is packed
        return found | _scan_bytes(root, rel, [wanted.pieces])
    return found


def _scan_array(root: Root, rel: str, hashes: frozenset[str]) -> set[str]:
    try:
        rows = parse_array(root.read_bytes(rel))
    except ValueError:
        return {UNREAD}
    if rows.ndim != 2 or not any(one.startswith(VECTOR) for one in hashes):
        return set()
    return {VECTOR + hashlib.sha256(row.tobytes()).hexdigest() for row in rows} & hashes
