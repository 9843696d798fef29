"""The selected rows as arrays in files that every worker of a node maps: at most 40 bytes a row, held once.

    uid 16, shard 4, offset 8, size 4, and where the text is, 8: beside the picture (text_delta 4, text_size 4) or in a
    file of captions (text_offset 8, one such array a caption column)

The captions file and the checksums (32 bytes a row, with `verify`) are further files, read where needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

UID_BYTES = 16
SHA256_BYTES = 32
COLUMNS: dict[str, np.dtype[Any]] = {
    "uid": np.dtype((np.uint8, UID_BYTES)),
    "shard": np.dtype(np.uint32),
    "offset": np.dtype(np.uint64),
    "size": np.dtype(np.uint32),
}
TEXT_COLUMNS = {"text_delta": np.dtype(np.uint32), "text_size": np.dtype(np.uint32)}
"""Bytes from the start of the picture to the start of its .txt member, and that member's size."""
META = "meta.json"


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What the arrays do not say. `shards` are (number of the root, path); groups are ranges of rows, in order."""

    num_rows: int
    digest: str
    """sha256 over the selection: equal digests mean equal rows in equal order."""
    shards: tuple[tuple[int, str], ...]
    groups: tuple[tuple[str, int, int], ...]
    captions: tuple[str, ...]
    """Columns whose text lies in text_N.bin; empty when the text is read beside the picture."""
    num_without_caption: int
    """Rows of which every caption is empty."""


class Index:
    """Arrays over the selected rows, mapped read-only from `folder`; pickles as the folder's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meta = json.loads((folder / META).read_text())
        meta |= {key: tuple(map(tuple, meta[key])) for key in ("shards", "groups")}
        self.meta = Meta(**meta | {"captions": tuple(meta["captions"])})

    def is_whole(self, names: Iterable[str]) -> bool:
        """Whether the array files of `names`, and those of the captions, are as long as the rows ask for."""
        sizes = {name: self.meta.num_rows * dtype.itemsize for name, dtype in (COLUMNS | TEXT_COLUMNS).items()}
        sizes["sha256"] = self.meta.num_rows * SHA256_BYTES
        if any(self._size(name) != sizes[name] for name in names):
            return False
        texts = range(len(self.meta.captions))
        if any(self._size(f"text_{k}.offset") != 8 * self.meta.num_rows for k in texts):
            return False
        return all(self._size(f"text_{k}") == int(self._texts[k][0][-1]) for k in texts)

    def _size(self, name: str) -> int:
        path = self.folder / f"{name}.bin"
        return path.stat().st_size if path.exists() else -1

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (self.folder,)

    def __len__(self) -> int:
        return self.meta.num_rows

    @cached_property
    def uid(self) -> np.ndarray:
        """uint8 `[n, 16]`."""
        return self._map("uid", COLUMNS["uid"])

    @cached_property
    def shard(self) -> np.ndarray:
        """uint32 `[n]`, a position in `meta.shards`."""
        return self._map("shard", COLUMNS["shard"])

    @cached_property
    def offset(self) -> np.ndarray:
        """uint64 `[n]`, first byte of the picture in its shard."""
        return self._map("offset", COLUMNS["offset"])

    @cached_property
    def size(self) -> np.ndarray:
        """uint32 `[n]`, bytes of the picture."""
        return self._map("size", COLUMNS["size"])

    @cached_property
    def text_delta(self) -> np.ndarray:
        return self._map("text_delta", TEXT_COLUMNS["text_delta"])

    @cached_property
    def text_size(self) -> np.ndarray:
        return self._map("text_size", TEXT_COLUMNS["text_size"])

    @cached_property
    def sha256(self) -> np.ndarray:
        """uint8 `[n, 32]`, of the picture's bytes; only there when the index was built with `verify`."""
        return self._map("sha256", np.dtype((np.uint8, SHA256_BYTES)))

    @cached_property
    def _texts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            (self._map(f"text_{k}.offset", np.dtype(np.uint64)), self._map(f"text_{k}", np.dtype(np.uint8)))
            for k in range(len(self.meta.captions))
        ]

    @property
    def num_bytes(self) -> int:
        """Size of the index proper, without captions and checksums."""
        counted = [f for f in self.folder.glob("*.bin") if f.stem in {*COLUMNS, *TEXT_COLUMNS} or ".offset" in f.stem]
        return sum(f.stat().st_size for f in counted)

    def uids(self, rows: np.ndarray) -> list[str]:
        """The uids of `rows`, 32 hex digits each."""
        digits = self.uid[rows].tobytes().hex()
        return [digits[i : i + 2 * UID_BYTES] for i in range(0, len(digits), 2 * UID_BYTES)]

    def captions(self, row: int, order: Sequence[int]) -> str:
        """The first non-empty caption of `row`, trying the caption columns in `order`; empty when there is none."""
        for column in order:
            offsets, text = self._texts[column]
            start, stop = int(offsets[row - 1]) if row else 0, int(offsets[row])
            if stop > start:
                return text[start:stop].tobytes().decode("utf-8", errors="replace")
        return ""

    def _map(self, name: str, dtype: np.dtype[Any]) -> np.ndarray:
        path = self.folder / f"{name}.bin"
        if not path.stat().st_size:
            return np.empty(0, dtype)
        base, shape = (dtype.base, (-1, *dtype.shape)) if dtype.subdtype else (dtype, (-1,))
        return np.memmap(path, base, "r").reshape(shape)


def write_meta(folder: Path, meta: Meta) -> None:
    (folder / META).write_text(json.dumps(asdict(meta)))
