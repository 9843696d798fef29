"""Which files of a root stand under a sum, and which of them stand there now."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from curation.errors import UserError
from curation.storage import CONFIG, Root
from curation.sums.packed import packed_folder
from curation.tables import (
    METADATA,
    VECTORS,
    embedding_tables,
    is_embeddings,
    metadata_folder,
    score_tables,
    texts_folder,
    vectors_folder,
)

UNIT_TABLES = ("samples", "rejects", "listings", "downloads")
FORGOTTEN = "forgotten"
_SELECTION = "selection"
VERSIONED = ("duplicates", _SELECTION, "train", "train_index")
CURRENT = "current.json"
EVERY_EMBEDDING = "embeddings_"
"""Stands for every table of vectors, as "scores_" does for those of scores."""
_SUFFIXES = {"plans": ".json", METADATA: ".parquet", VECTORS: ".npy"}


def summed_tables(root: Root) -> list[str]:
    """Every table that has files, in the order of the stages."""
    names = ("plans", FORGOTTEN, *UNIT_TABLES, *embedding_tables(root), *score_tables(root), *VERSIONED)
    return [name for name in names if list_standing(root, name)]


def expand_tables(root: Root, names: Iterable[str]) -> list[str]:
    """`names`, where "scores_" and "embeddings_" stand for every table of that kind, also one whose folder is gone."""
    sums = (root.record().sums or {}) if root.exists("root.json") else {}
    listed = sorted({*embedding_tables(root), *score_tables(root), *sums})
    return [one for name in names for one in (_of_kind(listed, name) if name.endswith("_") else [name])]


def _of_kind(tables: Iterable[str], kind: str) -> list[str]:
    return [table for table in tables if f"{table}_".startswith(kind)]


def list_standing(root: Root, table: str) -> dict[str, int]:
    """Bytes of each file of `table` that has to stand under a sum, by its path.

    Of a versioned table only the current version counts: nothing reads the others, and they may be deleted. Packed
    files of one that is about to be current count already. Units in packed files stand as long as those do.
    """
    if is_embeddings(table):
        metadata, vectors, texts = metadata_folder(table), vectors_folder(table), texts_folder(table)
        arrays = _list(root, vectors, ".npy") | _list(root, texts, ".npy")
        return _list(root, metadata, ".parquet") | arrays | _only(root, metadata, CONFIG)
    if table in VERSIONED:
        version = read_version(root, table)
        made = f"{table}/{version}"
        found = _only(root, table, CURRENT) | (_list(root, made, "") | _list_packed(root, made) if version else {})
        return _list_next_versions(root, table, version) | found
    return _list(root, table, _SUFFIXES.get(table, ".parquet")) | _list_packed(root, table) | _only(root, table, CONFIG)


def _list_next_versions(root: Root, table: str, current: str | None) -> dict[str, int]:
    """Units in packed files, and those, of versions that are not the current one and that the ledger names."""
    folders = {rel.rpartition("/")[0] for rel in root.places(table)} - {f"{table}/{current}"}
    listed = [_list(root, folder, ".parquet") | _list_packed(root, folder) for folder in folders]
    ledger = root.ledger(table)
    return {rel: size for one in listed for rel, size in one.items() if rel in ledger}


def _list_packed(root: Root, folder: str) -> dict[str, int]:
    """The packed files of `folder` that the ledger names; the units in them are listed as files of `folder`."""
    named = {place.file for place in root.places(folder.partition("/")[0]).values()}
    listed = _list(root, packed_folder(folder), ".parquet") if named else {}
    return {rel: size for rel, size in listed.items() if rel in named}


def list_packable(root: Root) -> list[str]:
    """Folders with files of units that may be joined. Vectors stay as clip-retrieval names them."""
    version = read_version(root, _SELECTION)
    selection = [f"{_SELECTION}/{version}"] if version else []
    return [folder for folder in (*UNIT_TABLES, *score_tables(root), *selection) if root.exists(folder)]


def list_unnamed_packed(root: Root, folder: str) -> list[str]:
    """Packed files of `folder` that no ledger names: `curate compact` was interrupted before they counted."""
    root.renew_places()
    named = {place.file for place in root.places(folder.partition("/")[0]).values()}
    return [rel for rel in _list(root, packed_folder(folder), ".parquet") if rel not in named]


def belonging(root: Root, table: str) -> Callable[[str], bool]:
    """Whether a stage can have made a file of `table`: of a table of units, only files of planned batches."""
    if table in ("plans", FORGOTTEN) or table in VERSIONED:
        return lambda rel: True
    batches = {name.removesuffix(".json") for name in root.list("plans", ".json")}

    def belongs(rel: str) -> bool:
        batch, _, number = unit_of(rel).rpartition("-")
        return rel.endswith(f"/{CONFIG}") or (batch in batches and number.isdigit())

    return belongs


def unit_of(rel: str) -> str:
    """The unit whose file `rel` is, in a table of units."""
    name = rel.rpartition("/")[2].rpartition(".")[0]
    return name.removeprefix("metadata_").removeprefix("img_emb_").removeprefix("text_emb_")


def read_version(root: Root, table: str) -> str | None:
    """The current version of a versioned table as its file says; None where nothing says so."""
    if table not in VERSIONED:
        return None
    try:
        found = (root.current(table) or {}).get("fingerprint")
    except (UserError, AttributeError):  # what damage did to it, its own sum tells
        return None
    return found if isinstance(found, str) else None


def _list(root: Root, folder: str, suffix: str) -> dict[str, int]:
    sizes = root.sizes(folder)
    return {f"{folder}/{n}": s for n, s in sizes.items() if n.endswith(suffix) and not n.startswith((".", "_"))}


def _only(root: Root, folder: str, name: str) -> dict[str, int]:
    rel = f"{folder}/{name}"
    return {rel: root.size(rel)} if root.exists(rel) else {}
