"""Embeddings that exist already, in clip-retrieval's layout: `img_emb/*.npy` beside `metadata/*.parquet`.

Row i of `img_emb/img_emb_N.npy` belongs to row i of `metadata/metadata_N.parquet`; rows are found by url and caption
(uid is their md5), whatever shard they were in. Its calibrated cosine is unknown: set dedupe.min_cosine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.schema import uid

URL_COLUMNS = ("url",)
CAPTION_COLUMNS = ("caption", "text")


class Folder:
    """See `jobs.embedders.Embedder`."""

    min_cosine: float | None = None
    reads_pictures = False

    def __init__(self, model: str) -> None:
        self._parts: list[np.ndarray] = []
        keys: list[np.ndarray] = []
        for metadata in sorted(Path(model, "metadata").glob("*.parquet")):
            array = Path(model, "img_emb", metadata.name.replace("metadata", "img_emb")).with_suffix(".npy")
            vectors, names = _part(metadata, array)
            self._parts.append(vectors)
            keys.append(_keys(names))
        if not self._parts:
            raise UserError(f"{model} has no metadata/*.parquet: it is no folder of embeddings.")
        dims = sorted({part.shape[1] for part in self._parts})
        if len(dims) > 1:
            raise UserError(f"{model} mixes vectors of {', '.join(map(str, dims))} dimensions: keep one kind.")
        self.dim = dims[0]
        self._firsts = np.cumsum([0, *(len(part) for part in self._parts)])
        together = np.concatenate(keys)
        self._order = np.argsort(together, kind="stable")
        self._sorted = together[self._order]

    @staticmethod
    def accepts(model: str) -> bool:
        return Path(model, "img_emb").is_dir()

    def embed(self, uids: Sequence[str], pictures: Iterable[bytes]) -> np.ndarray:
        """See `jobs.embedders.Embedder.embed`; NaN for a uid that the folder lacks. No picture is read."""
        vectors = np.full((len(uids), self.dim), np.nan, np.float32)
        wanted = _keys(uids)
        found = np.searchsorted(self._sorted, wanted)
        for i in np.flatnonzero(found < len(self._sorted)).tolist():
            if self._sorted[found[i]] == wanted[i]:
                row = self._order[found[i]]
                part = int(np.searchsorted(self._firsts, row, side="right")) - 1
                vectors[i] = self._parts[part][row - self._firsts[part]]
        return vectors


def _keys(uids: Sequence[str]) -> np.ndarray:
    """16 bytes a uid, sortable; a folder of a billion rows then takes 24 GB in each worker."""
    return np.frombuffer(bytes.fromhex("".join(uids)), "S16")


def _part(metadata: Path, array: Path) -> tuple[np.ndarray, list[str]]:
    if not array.is_file():
        raise UserError(f"{metadata} has no {array}: both halves of a folder of embeddings are needed.")
    vectors = np.load(array, mmap_mode="r", allow_pickle=False)
    uids = _uids(metadata)
    if vectors.ndim != 2 or len(uids) != len(vectors):
        raise UserError(f"{array} has shape {vectors.shape} and {metadata.name} {len(uids)} rows: they must match.")
    return vectors, uids


def _uids(metadata: Path) -> list[str]:
    names = pq.ParquetFile(metadata).schema_arrow.names
    by_lower = {name.lower(): name for name in names}
    if "uid" in by_lower and not set(URL_COLUMNS) & set(by_lower):
        return pq.read_table(metadata, columns=[by_lower["uid"]])[0].to_pylist()
    url = next((by_lower[c] for c in URL_COLUMNS if c in by_lower), None)
    caption = next((by_lower[c] for c in CAPTION_COLUMNS if c in by_lower), None)
    if url is None or caption is None:
        raise UserError(f"{metadata} has columns {', '.join(names)}; url and caption are needed to join by.")
    table = pq.read_table(metadata, columns=[url, caption])
    return [uid(u, c) for u, c in zip(table[url].to_pylist(), table[caption].to_pylist(), strict=True)]


EMBEDDER = Folder
