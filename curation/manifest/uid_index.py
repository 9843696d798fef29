"""Which files of a table can hold a uid: a Bloom filter for each file, and one read for all filters.

Uids are hashes, so every file has uids of the whole range, and statistics prune nothing. Parquet's own Bloom filters
would need every file to be opened. Here bit j of row p says whether position p is set in the filter of file j, so a
look-up reads eight rows of a few hundred bytes, however many rows the table has. The filters are made at the first
look-up, two bytes for each row, and are kept in the cache folder; new files are added at later look-ups.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from curation.caches import cache_folder
from curation.errors import UserError
from curation.hexadecimal import DIGITS, read_numbers
from curation.storage import Root, fingerprint

MIN_FILES = 64
"""With fewer files, opening every file takes no longer than a look-up."""
FILES_PER_SEGMENT = 1_024
MAX_SEGMENTS = 32
"""The most segments that are not full; with more, all segments are made anew."""
BITS_PER_ROW = 16
NUM_PROBES = 8
"""With 16 bits and 8 probes a row, one file in 1,700 is read in vain: (1 - e^(-8/16))^8."""
FORMAT = 1
Sized = tuple[str, int]


class UidIndex:
    """Finds uids in `files`: parquet files with a column uid, in one folder, relative to `root`."""

    def __init__(self, root: Root, files: Sequence[str]) -> None:
        self.files = list(files)
        self._segments = _cover_files(root, _list_sizes(root, files)) if len(files) >= MIN_FILES else None

    def files_with(self, uids: Iterable[str]) -> list[str]:
        """The files that can hold one of `uids` (32 hex digits each)."""
        if self._segments is None:
            return self.files
        wanted = list(uids)
        holding = {name for segment in self._segments for name in segment.files_with(wanted)}
        return [name for name in self.files if name in holding]


def _list_sizes(root: Root, files: Sequence[str]) -> list[Sized]:
    """Files with their sizes, by which an unchanged file is recognised."""
    sizes = root.sizes(files[0].rpartition("/")[0])
    return [(name, sizes[name.rpartition("/")[2]]) for name in files]


class Segment:
    """The filters of up to FILES_PER_SEGMENT files: uint8 `[positions, files / 8]`, mapped into memory.

    Raises ValueError for torn or foreign files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        named = json.loads(path.with_suffix(".json").read_bytes())
        if not (isinstance(named, list) and all(map(_is_sized, named))):
            raise ValueError("it does not say which files it is of")
        self.files: list[Sized] = [(name, size) for name, size in named]
        self.bits: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        is_filter = self.bits.dtype == np.uint8 and self.bits.ndim == 2 and len(self.bits)
        if not is_filter or self.bits.shape[1] != -(-len(self.files) // 8):
            raise ValueError("it holds no filter of its files")

    def files_with(self, uids: Sequence[str]) -> list[str]:
        either = np.zeros(self.bits.shape[1], np.uint8)
        for rows in _bit_positions(np.frombuffer(bytes.fromhex("".join(uids)), ">u8").reshape(-1, 2), len(self.bits)):
            either |= np.bitwise_and.reduce(self.bits[rows], axis=0)
        return [self.files[k][0] for k in np.flatnonzero(np.unpackbits(either)[: len(self.files)])]


def _is_sized(value: Any) -> bool:
    return isinstance(value, list) and [type(one) for one in value] == [str, int]


def _bit_positions(halves: np.ndarray, num: int) -> np.ndarray:
    """The bits of each uid: int64 `[n, NUM_PROBES]` below `num`, from its two halves `[n, 2]`, since it is a hash."""
    steps = np.arange(NUM_PROBES, dtype=np.uint64)
    first, second = halves.astype(np.uint64).T
    with np.errstate(over="ignore"):
        positions: np.ndarray = (first[:, None] + steps * (second[:, None] | np.uint64(1))) % np.uint64(num)
    return positions.astype(np.int64)


def _cover_files(root: Root, files: Sequence[Sized]) -> list[Segment] | None:
    """The segments that cover `files`; missing ones are made. None where the cache folder cannot be written."""
    folder = cache_folder() / "uids" / fingerprint([FORMAT, root.url(files[0][0].rpartition("/")[0])])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    wanted = set(files)
    segments = list(_load_segments(folder))
    useful = [segment for segment in segments if wanted & set(segment.files)]
    short = sum(len(segment.files) < FILES_PER_SEGMENT for segment in useful)
    if short > MAX_SEGMENTS:
        useful = []
    for segment in segments:
        if segment not in useful:
            _delete_segment(segment.path)
    missing = sorted(wanted - {file for segment in useful for file in segment.files})
    for start in range(0, len(missing), FILES_PER_SEGMENT):
        useful.append(_build_segment(root, folder, missing[start : start + FILES_PER_SEGMENT]))
    return useful


def _load_segments(folder: Path) -> Iterator[Segment]:
    """The segments in `folder`; torn and foreign ones are deleted, and so made again."""
    for path in sorted(folder.glob("*.npy")):
        try:
            yield Segment(path)
        except FileNotFoundError:  # another process has just replaced it
            continue
        except (OSError, ValueError, EOFError, RecursionError):
            _delete_segment(path)


def _delete_segment(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)


def _build_segment(root: Root, folder: Path, files: Sequence[Sized]) -> Segment:
    with ThreadPoolExecutor(root.count_readers(2)) as pool:
        uids = list(pool.map(lambda file: _read_halves(root, file[0]), files))
    num = BITS_PER_ROW * max(1, *map(len, uids))
    bits = np.zeros((num, -(-len(files) // 8)), np.uint8)
    for k, halves in enumerate(uids):
        bits[_bit_positions(halves, num).ravel(), k // 8] |= np.uint8(128 >> k % 8)
    path = folder / f"{uuid.uuid4().hex}.npy"
    path.with_suffix(".json").write_text(json.dumps(files))
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as f:
        np.save(f, bits)
    temporary.rename(path)
    return Segment(path)


def _read_halves(root: Root, name: str) -> np.ndarray:
    """uint64 `[n, 2]`: the uids of one file. Raises UserError for one that is not 32 hex digits."""
    uids = root.read_parquet(name, ["uid"])["uid"].combine_chunks()
    halves = read_numbers(uids, DIGITS, DIGITS) if not uids.null_count else None
    if halves is None:
        raise UserError(f"{root.url(name)} has a uid that is not 32 digits: run `curate verify {root.base}`.")
    return halves
