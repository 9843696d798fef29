"""Vectors are compared with their sums before they are mapped into memory, and scratch of a run is read as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from curation.tables import vectors_file
from jobs.duplicates.arrays import load_npy, save_npy
from tests.support import small_root
from tests.support.rot import flip_in_pages
from tests.support.small_root import UNITS


@pytest.mark.parametrize("place", ["local", "store"])
def test_a_vector_with_another_bit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = Root(tmp_path / "root")
    root.create(sealed=True)
    small_root.finish(root)
    seal_root(root, summed_tables(root))
    rel, sound = vectors_file(UNITS[0]), vectors_file(UNITS[1])
    flip_in_pages(Path(root.full(rel)))
    if place == "store":
        stored = Root(f"memory://{tmp_path.name}/root")
        stored.fs.put(root.path, stored.path, recursive=True)
        root = stored
    with pytest.raises(UserError, match=f"{rel} does not hold what was published: delete it and run `curate embed`"):
        load_npy(root, rel)
    assert load_npy(root, sound).shape[1] == 4


def test_scratch_of_a_run_has_no_sum(root: Root) -> None:
    values = np.arange(6).reshape(2, 3)
    path = save_npy(root, "duplicates/0123456789ab/work/one", values)
    assert np.array_equal(load_npy(root, path), values)
