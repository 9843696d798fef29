"""Verification: everything in a root is read again, and the first thing that does not agree is reported.

    curate verify ROOT

Input rows = samples + rejects; every uid is once in every table; every stored picture has its checksum, offset and
size; shards are named by their content; train shards = what the selection keeps. Stages that have not begun are
skipped, and nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from curation.manifest.manifest import Manifest
from curation.progress import bar
from curation.storage import Root
from curation.verify import plans, tables, train, units


def verify(root: Root) -> str | None:
    """The first difference as one sentence, None when there is none. Raises UserError for what is no root."""
    root.check_format()
    return next(find_differences(root), None)


def find_differences(root: Root) -> Iterator[str]:
    """Every difference, in the order of the stages: plans, units with their shards, whole tables, train shards."""
    yield from plans.find_differences(root)
    yield from _run_checks(
        "verify units", [partial(units.find_difference, root, unit) for unit in root.units("samples")]
    )
    manifest = Manifest(root)
    yield from tables.find_differences(manifest)
    yield from train.find_differences(manifest)
    parts = manifest.files("train_index")
    yield from _run_checks("verify train shards", [partial(train.find_difference, root, part) for part in parts])


def _run_checks(desc: str, checks: Iterable[Callable[[], str | None]]) -> Iterator[str]:
    """Yield the differences that `checks` find, in their order; hashing releases the interpreter lock."""
    listed = list(checks)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar(len(listed), desc, "file") as progress:
        try:
            for difference in pool.map(lambda check: check(), listed):
                progress.update()
                if difference:
                    yield difference
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
