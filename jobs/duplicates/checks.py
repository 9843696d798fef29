"""What must hold of the root's vectors before near-duplicates are looked for, asked on the driver."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from curation.errors import UserError
from curation.npy import read_vectors_shape
from curation.storage import Root
from curation.tables import metadata_file, vectors_file

NUM_READERS = 16


def check_vectors(root: Root, units: list[str]) -> int | None:
    """Dimension of the vectors of all `units`, None when none has rows; reads headers and footers only.

    Raises UserError naming what is missing, damaged, of another dimension, or has not one vector a row of metadata.
    """

    def read_sizes(unit: str) -> tuple[int, int, int]:
        uids = root.read_parquet(metadata_file(unit), [])
        remedy = f"delete the embeddings of unit {unit} and embed again"
        return *read_vectors_shape(root, vectors_file(unit), remedy), len(uids)

    first: tuple[str, int] | None = None
    with ThreadPoolExecutor(NUM_READERS) as pool:
        for unit, (rows, dim, uids) in zip(units, pool.map(read_sizes, units), strict=True):
            if rows != uids:
                raise UserError(
                    f"Unit {unit} has {rows} vectors for {uids} rows of metadata: delete both, embed again."
                )
            first = first or ((unit, dim) if rows else None)
            if rows and first is not None and dim != first[1]:
                raise UserError(
                    f"Unit {unit} has vectors of {dim} dimensions and unit {first[0]} of {first[1]}: "
                    f"delete the folder embeddings and embed everything with one model."
                )
    return None if first is None else first[1]
