"""Scratch of one dedupe run inside ROOT: arrays that tasks hand to each other, gone when the run is done."""

from __future__ import annotations

import hashlib
import io

import numpy as np

from curation.storage import Root


def save_npy(root: Root, folder: str, values: np.ndarray) -> str:
    """Publish `values` as a .npy file of `folder` under its content's name; the path, relative to ROOT."""
    sink = io.BytesIO()
    np.save(sink, values)
    data = sink.getvalue()
    path = f"{folder}/{hashlib.sha256(data).hexdigest()[:24]}.npy"
    root.publish(path, data)
    return path


def load_npy(root: Root, path: str) -> np.ndarray:
    """The array at `path`, memory-mapped when ROOT is local. Raises ValueError when it is not a whole .npy file."""
    local = root.local(path)
    if local is not None:
        return np.load(local, mmap_mode="r", allow_pickle=False)
    return np.load(io.BytesIO(root.read_bytes(path)), allow_pickle=False)
