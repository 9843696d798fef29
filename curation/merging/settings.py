"""Which tables are merged, and whether the roots made them with the same settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from curation.errors import UserError
from curation.records import STAGE_CONFIG
from curation.storage import CONFIG, Root
from curation.sums.cover import VERSIONED, summed_tables
from curation.tables import DOWNLOADS, embedding_tables, is_embeddings, metadata_folder, score_tables


def list_merged_tables(root: Root, without: Collection[str]) -> list[str]:
    """The tables of `root` that are merged: all but those that are made from all rows at once, and those `without`."""
    return [table for table in summed_tables(root) if table not in VERSIONED and table not in without]


def check_without(roots: Sequence[Root], without: Collection[str]) -> None:
    """Raise UserError for a table that cannot be left out, or that no root has."""
    known = sorted({table for root in roots for table in (*embedding_tables(root), *score_tables(root))})
    for table in without:
        if table not in known:
            there = f"the roots have {', '.join(known)}" if known else "no root has one"
            raise UserError(f"--without takes a table of vectors or scores, and {table} is none of them: {there}.")


def find_configs(roots: Sequence[Root], without: Collection[str]) -> dict[str, bytes]:
    """What stages recorded of their settings, by path. Raises UserError where two roots differ in them."""
    found: dict[str, tuple[Root, bytes]] = {}
    for root in roots:
        derived = [table for table in (*embedding_tables(root), *score_tables(root)) if table not in without]
        for table in (DOWNLOADS, *derived):
            folder = metadata_folder(table) if is_embeddings(table) else table
            rel = f"{folder}/{CONFIG}"
            if not root.exists(rel) or not root.units(folder):
                continue
            other, _ = found.setdefault(rel, (root, root.read_whole(rel)))
            _check_alike(other, root, table, rel)
    return {rel: data for rel, (_, data) in found.items()}


def _check_alike(one: Root, other: Root, table: str, rel: str) -> None:
    first, second = (root.read_record(rel, STAGE_CONFIG)["config"] for root in (one, other))
    keys = sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
    if not keys:
        return
    advice = (
        "merge roots whose pictures were stored alike"
        if table == DOWNLOADS
        else f"give --without {table}, and `curate {'embed' if is_embeddings(table) else 'score'}` makes it anew"
    )
    raise UserError(
        f"{table} of {one.base} and of {other.base} were made with other settings ({', '.join(keys)} differ): {advice}."
    )
