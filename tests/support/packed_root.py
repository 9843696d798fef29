"""A sealed root of many small units of one batch, to join and take apart, and commands on it that are killed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation import schema
from curation.storage import Root
from curation.sums.cover import list_packable, summed_tables
from curation.sums.seal import seal_root
from tests.support import small_root
from tests.support.removal import KilledError, Killing
from tests.support.small_root import BATCH, VERSION

NUM_ROWS = 12
"""Rows of each unit; no picture of them came."""


def build(folder: Path | Root, units: Iterable[int] = range(8)) -> Root:
    """Samples, rejects (of every other unit), downloads, a table of scores and a selection of `units`."""
    root = folder if isinstance(folder, Root) else Root(folder)
    root.create(sealed=True)
    numbers = list(units)
    files = [_write_unit(root, number) for number in numbers]
    root.publish_current("selection", VERSION, files, {"rules": {}, "order": [], "quantiles": []}, {})
    totals = {"samples": NUM_ROWS * len(numbers), "no_url": sum(number % 2 == 0 for number in numbers)}
    plan = {
        "batch": BATCH,
        "number": 0,
        "inputs": [{"source": "laion", "path": "p", "num_rows": sum(totals.values()), "fingerprint": "f"}],
        "totals": totals,
        "units": {f"{number:06d}": NUM_ROWS for number in numbers},
    }
    root.publish_json(f"plans/{BATCH}.json", plan)
    seal_root(root, summed_tables(root))
    return root


def _write_unit(root: Root, number: int) -> str:
    unit = f"{BATCH}-{number:06d}"
    rows = sorted((small_root.sample(NUM_ROWS * number + k) for k in range(NUM_ROWS)), key=lambda row: row["uid"])
    root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
    if number % 2 == 0:
        reject = {"source": "laion", "file": "p", "row": number, "uid": None, "reason": "no_url"}
        root.publish_parquet(f"rejects/{unit}.parquet", pa.Table.from_pylist([reject], schema.REJECTS))
    lost = [{**dict.fromkeys(schema.DOWNLOADS.names), "uid": row["uid"], "status": "http_404"} for row in rows]
    root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(lost, schema.DOWNLOADS))
    no_scores = pa.schema([("uid", pa.string()), ("words", pa.int32())]).empty_table()
    root.publish_parquet(f"scores_words/{unit}.parquet", no_scores)
    decided = [{"uid": row["uid"], "kept": False, "reason": "download:http_404"} for row in rows]
    rel = f"selection/{VERSION}/{unit}.parquet"
    root.publish_parquet(rel, pa.Table.from_pylist(decided, schema.SELECTION))
    return rel


def read_units(root: Root) -> dict[str, bytes]:
    """Every file of a unit as its reader gets it, compared with its sum."""
    folders = list_packable(root)
    return {
        rel: root.read_whole(rel)
        for folder in folders
        for rel in (f"{folder}/{n}" for n in root.list(folder, ".parquet"))
    }


def standing(root: Root) -> set[str]:
    """The files of units, and packed ones, that stand in the folders of tables."""
    folders = [f for folder in list_packable(root) for f in (folder, f"{folder}/packed")]
    return {f"{f}/{name}" for f in folders for name in root.own_sizes(f) if name.endswith(".parquet")}


def is_killed(command: Callable[[], Any], killing: Killing) -> bool:
    """Run `command`, killed as `killing` says; whether it was."""

    def delete_files(root: Root, rels: Iterable[str]) -> None:
        for rel in rels:
            killing.delete(root, rel)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Root, "put", lambda root, rel, data: killing.put(root, rel, data))
        patch.setattr(Root, "delete", lambda root, rel: killing.delete(root, rel))
        patch.setattr(Root, "delete_files", delete_files)
        try:
            command()
        except KilledError:
            return True
    return False
