"""Scratch of one dedupe run inside ROOT: arrays that tasks hand to each other, removed when the run is done."""

from __future__ import annotations

import hashlib
import io

import numpy as np

from curation.storage import Root
from curation.sums.reading import check_sums


def save_npy(root: Root, folder: str, values: np.ndarray) -> str:
    """Publish `values` as a .npy file of `folder` under its content's name; the path, relative to ROOT."""
    sink = io.BytesIO()
    np.save(sink, values)
    data = sink.getvalue()
    path = f"{folder}/{hashlib.sha256(data).hexdigest()[:24]}.npy"
    root.publish(path, data)
    return path


def load_npy(root: Root, path: str) -> np.ndarray:
    """The array at `path`, memory-mapped when ROOT is local. Raises ValueError when it is not a whole .npy file.

    UserError when it does not hold what its ledger says; a file of this machine is summed once.
    """
    local = root.local(path)
    array: np.ndarray
    if local is not None:
        check_sums(root, [path])
        array = np.load(local, mmap_mode="r", allow_pickle=False)
    else:
        array = np.load(io.BytesIO(root.read_whole(path)), allow_pickle=False)
    return array


def remove_stale_work(root: Root, table: str, fp: str) -> None:
    """Remove the scratch that killed runs left in versions of `table` other than `fp`."""
    if not root.exists(table):
        return
    for entry in root.fs.ls(root.full(table), detail=True):
        name = entry["name"].rstrip("/").rpartition("/")[2]
        if entry["type"] == "directory" and name != fp:
            root.remove(f"{table}/{name}/work")
