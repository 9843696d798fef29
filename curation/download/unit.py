"""One unit of the plan: every picture is fetched, checked and stored, and every uid gets one row with a status.

The unit's tar and row file are published when all rows have ended. Until then ended rows stand in a journal on local
disk, so that a killed task goes on at the row where it was.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from curation.download import rounds
from curation.download.journal import Journal
from curation.download.log import UnitLog
from curation.download.native_engine import fetch_rows
from curation.download.opt_out import load_opt_out
from curation.download.publish import publish_unit
from curation.download.tombstones import read_tombstones
from curation.download.unit_rows import Engine, UnitRows
from curation.paths import find_listed
from curation.recipe.config import DownloadConfig, Recipe
from curation.schema import DownloadRow, SampleRow
from curation.settings import content_settings
from curation.storage import Root, fingerprint
from curation.tables import downloads_file, samples_file

COLLECT_AFTER = 20_000
"""Objects that may be created between two searches for cycles."""


def resolve_opt_out_paths(recipe: Recipe) -> DownloadConfig:
    """The recipe's section with the full path of each opt-out list, ready to be sent to a task.

    Raises UserError when a pattern names no list.
    """
    patterns = map(recipe.resolve, recipe.download.opt_out)
    lists = (path for pattern in patterns for path in find_listed(pattern, "download.opt_out"))
    return replace(recipe.download, opt_out=tuple(lists))


@contextlib.contextmanager
def _collect_garbage_seldom() -> Iterator[None]:
    """Search for cycles of objects rarely: a row makes a hundred objects and hardly a cycle, and searching after every
    700 objects takes a fiftieth of all time.
    """
    usual = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@_collect_garbage_seldom()
def download_unit(
    root: Root, unit: str, config: DownloadConfig, fetch_round: int = 0, engine: Engine = fetch_rows
) -> None:
    """Download `unit` and publish it: all its rows in round 0, the rows that are due in a later round.

    `engine` ends the rows. There is nothing to do where this round has already published the unit.
    Raises OSError when the disk is full.
    """
    rel = downloads_file(unit)
    earlier: list[DownloadRow] = root.read_parquet(rel).to_pylist() if root.exists(rel) else []
    due = {row["uid"]: row for row in earlier if rounds.is_due(row, fetch_round)}
    if earlier and not due:
        return
    columns = SampleRow.__annotations__
    samples: list[SampleRow] = root.read_parquet(samples_file(unit), columns).to_pylist()
    tried = [sample for sample in samples if sample["uid"] in due] if earlier else samples
    kept = [row for row in earlier if row["uid"] not in due]
    key = fingerprint([root.base, content_settings(config), fetch_round])
    opt_out = replace(load_opt_out(config.opt_out, root.scratch()), forgotten=read_tombstones(root).digests)
    with _open_journal(root, f"{unit}-{key}.journal") as journal, UnitLog(root, unit, fetch_round, len(tried)) as log:
        engine(UnitRows(tried, journal, config, opt_out, log, due))
        publish_unit(root, unit, tried, journal, kept, fetch_round)
        journal.delete()


def _open_journal(root: Root, name: str) -> Journal:
    """The journal of the unit; a private one where another attempt at the unit (speculation) holds the lock."""
    try:
        return Journal(root.scratch() / name).open()
    except BlockingIOError:
        return Journal(Path(tempfile.mkstemp(prefix=name, dir=root.scratch())[1])).open()
