"""A folder of embeddings in clip-retrieval's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TWO_ROWS = pa.table({"url": ["a", "b"], "caption": ["", ""]})


def write_folder(folder: Path, parts: list[tuple[pa.Table, np.ndarray]]) -> None:
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for number, (metadata, vectors) in enumerate(parts):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors)
        pq.write_table(metadata, folder / "metadata" / f"metadata_{number}.parquet")
