"""What must hold before near-duplicates are looked for, asked on the driver: Spark would bury a task's sentence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from curation.errors import UserError
from curation.npy import vectors_in
from curation.recipe.config import Recipe
from curation.storage import CONFIG, Root
from curation.tables import METADATA, metadata_file, vectors_file
from jobs.embed import identity, model_of

NUM_READERS = 16


def checked_model(recipe: Recipe, root: Root) -> str:
    """`identity` of the model that made the root's vectors.

    Raises UserError when the recipe names another: its calibrated cosine would say nothing of these vectors.
    """
    model = model_of(recipe)
    rel = f"{METADATA}/{CONFIG}"
    if not root.exists(rel):
        return identity(model)
    made: str = root.read_json(rel)["config"]["model"]
    # A file that was deleted since can be told by its name only.
    is_gone = not Path(model).exists() and made.startswith(f"{Path(model).name}:")
    if made != identity(model) and not is_gone:
        raise UserError(
            f"{root.base} was embedded with {made} and the recipe's embed.model is {identity(model)}: name the former, "
            f"or delete {root.url('embeddings')} and run `curate embed`."
        )
    return made


def check_vectors(root: Root, units: list[str]) -> int | None:
    """Dimension of the vectors of all `units`, None when none has rows; reads headers and footers only.

    Raises UserError naming what is missing, damaged, of another dimension, or has not one vector a row of metadata.
    """

    def look(unit: str) -> tuple[int, int, int]:
        uids = root.read_parquet(metadata_file(unit), [])
        return *vectors_in(root, vectors_file(unit), f"delete the embeddings of unit {unit} and embed again"), len(uids)

    first: tuple[str, int] | None = None
    with ThreadPoolExecutor(NUM_READERS) as pool:
        for unit, (rows, dim, uids) in zip(units, pool.map(look, units), strict=True):
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


def remove_stale_work(root: Root, table: str, fp: str) -> None:
    """Remove the scratch that killed runs left in versions of `table` other than `fp`."""
    if not root.exists(table):
        return
    for entry in root.fs.ls(root.full(table), detail=True):
        name = entry["name"].rstrip("/").rpartition("/")[2]
        if entry["type"] == "directory" and name != fp:
            root.remove(f"{table}/{name}/work")
