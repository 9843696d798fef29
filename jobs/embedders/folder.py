"""Embeddings that exist already, in clip-retrieval's layout: `img_emb/*.npy` beside `metadata/*.parquet`.

Row i of `img_emb/img_emb_N.npy`, and of `text_emb/text_emb_N.npy` where there is such a folder, belongs to row i of
`metadata/metadata_N.parquet`; rows are found by url and caption (uid is their md5), whatever shard they were in. Its
calibrated cosine is unknown: set dedupe.min_cosine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.npy import read_vectors_shape
from curation.schema import uid
from curation.storage import Root

if TYPE_CHECKING:
    from jobs.embedders import TextSide

URL_COLUMNS = ("url",)
CAPTION_COLUMNS = ("caption", "text")
UID = "^[0-9a-fA-F]{32}$"


class Folder:
    """See `jobs.embedders.Embedder`."""

    min_cosine: float | None = None
    doubtful_cosines: tuple[float, float] | None = None
    reads_pictures = False

    def __init__(self, model: str) -> None:
        self.dim = Folder.check(model)
        pairs = _find_pairs(model)
        self._arrays = [np.load(array, mmap_mode="r", allow_pickle=False) for _, array in pairs]
        self._texts = [np.load(array, mmap_mode="r", allow_pickle=False) for array in _find_texts(model, pairs)]
        self._first_rows = np.cumsum([0, *(len(array) for array in self._arrays)])
        keys = np.concatenate([_as_keys(_read_uids(metadata)) for metadata, _ in pairs])
        self._order = np.argsort(keys, kind="stable")
        self._sorted_keys = keys[self._order]

    @staticmethod
    def accepts(model: str) -> bool:
        return Path(model, "img_emb").is_dir()

    @staticmethod
    def check(model: str) -> int:
        """See `jobs.embedders.Embedder.check`. Reads headers and footers, and names the file that is at fault."""
        dims, pairs = set(), _find_pairs(model)
        texts = _find_texts(model, pairs)
        for number, (metadata, array) in enumerate(pairs):
            num_vectors, dim = read_vectors_shape(Root(array.parent), array.name, "fetch it again")
            if texts:
                shape = read_vectors_shape(Root(texts[number].parent), texts[number].name, "fetch it again")
                if shape != (num_vectors, dim):
                    raise UserError(f"{texts[number]} has not the shape of {array}: fetch both of one model.")
            with _open_metadata(metadata) as file:
                num_rows = file.metadata.num_rows
                _key_columns(metadata, file.schema_arrow.names)
            if num_rows != num_vectors:
                raise UserError(
                    f"{array} has {num_vectors} vectors and {metadata.name} {num_rows} rows: they must match."
                )
            dims.add(dim)
        if len(dims) > 1:
            raise UserError(f"{model} mixes vectors of {', '.join(map(str, sorted(dims)))} dimensions: keep one kind.")
        return dims.pop()

    def embed(self, uids: Sequence[str], pictures: Iterable[bytes]) -> np.ndarray:
        """See `jobs.embedders.Embedder.embed`; NaN for a uid that the folder lacks. No picture is read."""
        return self._look_up(self._arrays, uids)

    @staticmethod
    def find_text_side(model: str) -> TextSide:
        """See `jobs.embedders.TextEmbedder.find_text_side`."""
        return "captions" if _find_texts(model, _find_pairs(model)) else "none"

    def embed_texts(self, uids: Sequence[str], texts: Sequence[str | None]) -> np.ndarray:
        """See `jobs.embedders.TextEmbedder.embed_texts`; NaN for a uid that the folder lacks. No text is read."""
        return self._look_up(self._texts, uids)

    def _look_up(self, arrays: Sequence[np.ndarray], uids: Sequence[str]) -> np.ndarray:
        vectors = np.full((len(uids), self.dim), np.nan, np.float32)
        wanted = _as_keys(uids)
        places = np.searchsorted(self._sorted_keys, wanted)
        for i in np.flatnonzero(places < len(self._sorted_keys)).tolist():
            if self._sorted_keys[places[i]] == wanted[i]:
                row = self._order[places[i]]
                number = int(np.searchsorted(self._first_rows, row, side="right")) - 1
                vectors[i] = arrays[number][row - self._first_rows[number]]
        return vectors


def _as_keys(uids: Sequence[str]) -> np.ndarray:
    """16 bytes a uid, sortable; a folder of a billion rows then takes 24 GB in each worker."""
    return np.frombuffer(bytes.fromhex("".join(uids)), "S16")


def _find_pairs(model: str) -> list[tuple[Path, Path]]:
    """Each file of metadata with its file of vectors. Raises UserError for a half without the other."""
    pairs = []
    for metadata in sorted(Path(model, "metadata").glob("*.parquet")):
        array = Path(model, "img_emb", metadata.name.replace("metadata", "img_emb")).with_suffix(".npy")
        if not array.is_file():
            raise UserError(f"{metadata} has no {array}: both halves of a folder of embeddings are needed.")
        pairs.append((metadata, array))
    if not pairs:
        raise UserError(f"{model} has no metadata/*.parquet: it is no folder of embeddings.")
    alone = sorted(set(Path(model, "img_emb").glob("*.npy")) - {array for _, array in pairs})
    if alone:
        raise UserError(f"{alone[0]} has no metadata/*.parquet: fetch that half too, or delete the vectors.")
    return pairs


def _find_texts(model: str, pairs: Sequence[tuple[Path, Path]]) -> list[Path]:
    """The vectors of captions beside each pair; none where the folder has none. Raises UserError for a part of them."""
    if not Path(model, "text_emb").is_dir():
        return []
    texts = [Path(model, "text_emb", array.name.replace("img_emb", "text_emb")) for _, array in pairs]
    missing = next((text for text in texts if not text.is_file()), None)
    if missing is not None:
        raise UserError(f"{missing} is missing, and its folder has others: fetch it too, or delete text_emb.")
    return texts


@contextlib.contextmanager
def _open_metadata(metadata: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(metadata, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{metadata} is not a readable parquet file ({error}): fetch it again.") from error


def _key_columns(metadata: Path, names: list[str]) -> list[str]:
    """The columns to join by: the uid, or url and caption."""
    by_lower = {name.lower(): name for name in names}
    if "uid" in by_lower and not set(URL_COLUMNS) & set(by_lower):
        return [by_lower["uid"]]
    url = next((by_lower[c] for c in URL_COLUMNS if c in by_lower), None)
    caption = next((by_lower[c] for c in CAPTION_COLUMNS if c in by_lower), None)
    if url is None or caption is None:
        raise UserError(f"{metadata} has columns {', '.join(names)}; url and caption are needed to join by.")
    return [url, caption]


def _read_uids(metadata: Path) -> list[str]:
    with _open_metadata(metadata) as file:
        columns = _key_columns(metadata, file.schema_arrow.names)
        table = file.read(columns=columns)
    if len(columns) == 2:
        urls, captions = (table[name].to_pylist() for name in columns)
        return [uid(u, c) for u, c in zip(urls, captions, strict=True)]
    uids = table[0].cast(pa.string())
    wrong = len(uids) - (pc.sum(pc.match_substring_regex(uids, UID)).as_py() or 0)
    if wrong:
        raise UserError(f"{metadata} has {wrong} rows whose {columns[0]} is not 32 hexadecimal digits: write them so.")
    values: list[str] = uids.to_pylist()
    return values


EMBEDDER = Folder
