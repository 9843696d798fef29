"""Verification: everything in a root is read again, and the first thing that does not agree is reported.

    curate verify ROOT

Every file of a sealed root agrees with its sum. In any root, input rows = samples + rejects; every uid is once in each
table; every stored picture has its checksum, offset and size; shards are named by their content; train shards = what
the selection keeps. Stages that have not begun are skipped, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import duckdb

from curation.freshness import find_stale
from curation.manifest.manifest import Manifest, explain_error
from curation.storage import Root
from curation.verify import plans, sizes, sums, tables, train, units
from curation.verify.each import catch_errors, check_each


def verify(root: Root, quick: bool = False) -> str | None:
    """The first difference as one sentence, None when there is none. Raises UserError for what is no root."""
    return next(find_differences(root, quick), None)


def find_differences(root: Root, quick: bool = False) -> Iterator[str]:
    """Every difference: files and their sums, then plans, units with their shards, whole tables, train shards.

    With `quick`, files are only looked for and their sizes compared, small ones are read, and no rows are compared.
    Raises UserError for what is no root.
    """
    root.check_format()
    yield from catch_errors(partial(sums.find_differences, root, quick))
    if quick:
        yield from check_each(
            "verify shards", [partial(sizes.find_missing_shard, root, u) for u in root.units("downloads")]
        )
        return
    for check in list_row_checks(root):
        yield from catch_errors(check)


def list_row_checks(root: Root) -> list[Callable[[], Iterator[str]]]:
    """The checks of rows, which do not need sums: tables against each other, and shards against tables."""
    return [
        partial(plans.find_differences, root),
        partial(find_stale, root),
        partial(_find_differences_of_units, root),
        partial(_find_differences_of_tables, root),
        partial(_find_differences_of_shards, root),
    ]


def _find_differences_of_units(root: Root) -> Iterator[str]:
    yield from check_each(
        "verify units", [partial(units.find_difference, root, unit) for unit in root.units("samples")]
    )


def _find_differences_of_tables(root: Root) -> Iterator[str]:
    try:
        with Manifest(root, check="nothing") as manifest:
            yield from tables.find_differences(manifest)
            yield from train.find_differences(manifest)
    except duckdb.Error as error:
        yield f"DuckDB cannot read the tables: {explain_error(error)}"


def _find_differences_of_shards(root: Root) -> Iterator[str]:
    parts = (root.current("train_index") or {"files": []})["files"]
    yield from check_each("verify train shards", [partial(train.list_differences, root, part) for part in parts])
