"""What is compared of the pictures that came, as columns of numbers in files of a private folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.download.withdrawn import Lists, find_withdrawn
from curation.duplicates.captions import number_captions
from curation.duplicates.keep import Term
from curation.duplicates.phash import NUM_SET_BITS
from curation.errors import UserError
from curation.hexadecimal import DIGITS, read_numbers, read_sums
from curation.schema import Status
from curation.selection.place_finder import PlaceFinder
from curation.selection.rows import append_columns
from curation.storage import Root
from curation.tables import SAMPLES, downloads_file

UNKNOWN = np.uint64(2**64 - 1)
"""The value of a term of the keep rule that is null or NaN: it comes last."""
_READ = {"resolution": ("width", "height")}
_FROM_DOWNLOADS = ("width", "height", "num_bytes")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is read of each unit."""

    terms: Sequence[Term]
    """Of the keep rule, up to its first uid and without that."""
    lists: Lists
    """Pictures that these name by now are left out."""
    min_entropy: float
    exact: bool
    perceptual: bool
    same_caption: bool


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """The pictures of a unit: arrays of as many rows by name, and what is not numbers by then."""

    columns: dict[str, np.ndarray]
    """`uid` uint64 `[n, 2]`; `key-I` for term I of the keep rule, smaller ones first, those of sources not ordered yet;
    `sha256` and `content` uint64 `[n, 2]`; `phash` uint64 with `has_phash` bool; `text` int64."""
    sources: list[str]
    """The sources that the keys of sources number."""
    num_too_plain: int
    """Pictures whose perceptual hash says nothing."""


def scan_unit(root: Root, wanted: Wanted, unit: str) -> Scanned:
    """Read one unit. Raises UserError for tables that are damaged."""
    rows = _read_pictures(root, wanted, unit)
    sources = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], pa.string()))
    if "source" in rows.column_names:
        sources = rows["source"].combine_chunks().dictionary_encode()
    columns, num_plain = _encode(wanted, rows, sources.indices)
    return Scanned(columns=columns, sources=sources.dictionary.to_pylist(), num_too_plain=num_plain)


def _read_pictures(root: Root, wanted: Wanted, unit: str) -> pa.Table:
    """The pictures of `unit` that came and that no list names, with the columns that are wanted."""
    names = {name for term in wanted.terms for name in _READ.get(term.column, (term.column,))}
    downloads = [name for name in _FROM_DOWNLOADS if name in names]
    downloads += ["sha256", "pixel_sha256"] if wanted.exact else []
    rows, stored = root.read_keyed(downloads_file(unit), ["status", "phash", "entropy", *downloads], ())
    samples = [*sorted(names.difference(_FROM_DOWNLOADS)), *(["caption"] if wanted.same_caption else [])]
    if samples:
        rows = append_columns(root, unit, rows, {SAMPLES: samples}, PlaceFinder(rows["uid"], {stored: None}))
    rows = rows.filter(pc.equal(rows["status"], Status.OK.value))
    withdrawn = find_withdrawn(root, unit, wanted.lists)["uid"]
    return rows.filter(pc.invert(pc.is_in(rows["uid"], withdrawn.combine_chunks()))) if len(withdrawn) else rows


def _encode(wanted: Wanted, rows: pa.Table, sources: pa.Array) -> tuple[dict[str, np.ndarray], int]:
    """The columns of `rows` and how many of them are too plain; `sources` numbers the source of each."""
    uids = read_numbers(rows["uid"].combine_chunks(), DIGITS, DIGITS)
    if uids is None:
        raise UserError("A uid is not 32 digits of small hexadecimal: see `curate verify`.")
    columns = {"uid": uids}
    for number, term in enumerate(wanted.terms):
        columns[f"key-{number}"] = _encode_term(term, rows, sources)
    hashes, is_plain = _read_hashes(rows, wanted.min_entropy)
    if wanted.exact:
        columns["sha256"], columns["content"] = _read_contents(rows, uids)
    if wanted.perceptual:
        bits = np.bitwise_count(hashes)
        columns |= {"phash": hashes, "has_phash": (bits == NUM_SET_BITS) & ~is_plain}
    if wanted.same_caption:
        columns["text"] = number_captions(rows["caption"])
    has_hash = np.asarray(rows["phash"].is_valid())
    odd = has_hash & (np.bitwise_count(hashes) != NUM_SET_BITS)
    return columns, int((odd | is_plain).sum())


def _read_hashes(rows: pa.Table, min_entropy: float) -> tuple[np.ndarray, np.ndarray]:
    """The perceptual hashes, uint64 `[n]`, 0 for null, and which pictures have less than `min_entropy` bits."""
    known = np.asarray(rows["phash"].is_valid())
    named = rows["phash"].drop_null().combine_chunks()
    numbers = read_numbers(named, 16, 16)
    if numbers is None:
        numbers = np.array([int(text, 16) for text in named.to_pylist()], np.uint64)
    hashes = np.zeros(len(rows), np.uint64)
    hashes[known] = numbers.ravel()
    entropies = pc.fill_null(rows["entropy"], np.inf).to_numpy()
    return hashes, entropies.astype(np.float64) < min_entropy


def _read_contents(rows: pa.Table, uids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Names of the bytes and of the pixels of each picture, uint64 `[n, 2]`.

    Bytes of which no sum is known are named by the uid, as no others are; pixels of which none is known are 0.
    """
    sums, known = read_sums(rows["sha256"])
    sums[~known] = uids[~known]
    pixels, _ = read_sums(rows["pixel_sha256"])
    return sums, pixels


def _encode_term(term: Term, rows: pa.Table, sources: pa.Array) -> np.ndarray:
    """Numbers whose order is that of the term, UNKNOWN for unknown values; those of sources are not ordered yet."""
    if term.column == "source":
        return np.asarray(pc.fill_null(sources.cast(pa.int64()), -1)).astype(np.int64).view(np.uint64)
    if term.column in ("resolution", "num_bytes"):
        columns = [rows[name].cast(pa.int64()) for name in _READ.get(term.column, (term.column,))]
        known = np.logical_and.reduce([np.asarray(column.is_valid()) for column in columns])
        value = np.prod([pc.fill_null(column, 0).to_numpy() for column in columns], axis=0)
        return _order(value.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63), known, term.descending, 64)
    values = pc.fill_null(rows[term.column], np.nan).to_numpy().astype(np.float32) + np.float32(0)
    bits = values.view(np.uint32)
    bits = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return _order(bits.astype(np.uint64), ~np.isnan(values), term.descending, 32)


def _order(values: np.ndarray, known: np.ndarray, descending: bool, num_bits: int) -> np.ndarray:
    if descending:
        values = np.uint64((1 << num_bits) - 1) - values
    return np.where(known, np.minimum(values, UNKNOWN - np.uint64(1)), UNKNOWN)


@dataclass
class Columns:
    """Columns of numbers in files of `folder`, which grow unit by unit."""

    folder: Path
    num_rows: int = 0
    num_too_plain: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    """Source → its number."""
    _kinds: dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]] = field(default_factory=dict)

    def append(self, part: Scanned, terms: Sequence[Term]) -> None:
        """Add the rows of `part`."""
        renumbered = [self.sources.setdefault(source, len(self.sources)) for source in part.sources]
        numbers = np.array([*renumbered, UNKNOWN], np.uint64)
        for name, values in part.columns.items():
            if name.startswith("key-") and terms[int(name.removeprefix("key-"))].column == "source":
                values = numbers[values.view(np.int64)]
            self.write(name, values)
        self.num_rows += len(part.columns["uid"])
        self.num_too_plain += part.num_too_plain

    def write(self, name: str, values: np.ndarray) -> None:
        """Write `values` behind what the column `name` holds by now."""
        self._kinds[name] = (values.dtype, values.shape[1:])
        with (self.folder / name).open("ab") as file:
            np.ascontiguousarray(values).tofile(file)

    def has(self, name: str) -> bool:
        """Whether there is a column `name`."""
        return name in self._kinds

    def map(self, name: str, mode: Literal["r", "r+"] = "r") -> np.ndarray:
        """The column `name`, read where it is asked for; with the mode `r+` it may be changed.

        What was read counts as memory of this process until the array is gone, so large columns are mapped anew for
        each piece.
        """
        dtype, shape = self._kinds[name]
        if not self.num_rows:
            return np.zeros((0, *shape), dtype)
        return np.memmap(self.folder / name, dtype, mode, shape=(self.num_rows, *shape))

    def read(self, name: str) -> np.ndarray:
        """The column `name` in memory."""
        return np.array(self.map(name))
