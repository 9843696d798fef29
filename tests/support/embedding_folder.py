"""A folder of embeddings in clip-retrieval's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CAPTIONS = ["a red dog", "two cats on a mat", "", "the sea"]
TWO_ROWS = pa.table({"url": ["a", "b"], "caption": ["", ""]})


def write_folder(folder: Path, parts: list[tuple[pa.Table, np.ndarray]]) -> None:
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, (metadata, vectors) in enumerate(parts):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors)
        pq.write_table(metadata, folder / "metadata" / f"metadata_{number}.parquet")


def write_vectors_folder(folder: Path) -> dict[str, np.ndarray]:
    """LAION's published layout, with vectors of captions, for the first three pictures; the latter by caption."""
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((2, 3, 8)).astype(np.float16)
    urls = [f"http://host{i % 3}.test/{i}.jpg" for i in range(3)]
    write_folder(folder, [(pa.table({"url": urls, "caption": CAPTIONS[:3]}), images)])
    (folder / "text_emb").mkdir()
    np.save(folder / "text_emb" / "text_emb_0.npy", texts)
    return dict(zip(CAPTIONS, texts, strict=False))
