"""What the page says of a root before anything is asked: its sources, the funnel, and the columns to ask about."""

from __future__ import annotations

from typing import Any

from curation.browse.desk import Desk
from curation.manifest.manifest import Manifest
from curation.report.funnel import funnel


def describe_start(manifest: Manifest) -> dict[str, Any]:
    """What the page needs at once: the root's name, its units, and the condition of the first wall.

    That is what the selection keeps, or where there is none yet, the pictures that came.
    """
    root = manifest.root
    came = "status = 'ok'" if manifest.files("downloads") else ""
    return {
        "name": root.base.rstrip("/").rsplit("/", 1)[-1],
        "base": root.base,
        "num_units": len(root.units("samples")),
        "where": "kept" if manifest.files("selection") else came,
    }


def describe_root(desk: Desk) -> dict[str, Any]:
    """The `funnel` (stage, reason, count, detail), and the `columns` (table, name, type)."""
    manifest = desk.manifest
    relation = manifest.query("select * from manifest limit 0")
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    return {
        "funnel": [
            {"stage": row.stage, "reason": row.reason, "count": row.count, "detail": row.detail}
            for row in funnel(manifest)
        ],
        "columns": [
            {"table": table, "name": name, "type": types[name]}
            for table, names in manifest.columns_by_table().items()
            for name in names
        ],
    }
