"""The report: how many rows each stage kept and lost, as text (`curate status ROOT`) and as an HTML page with pictures.

    curate report ROOT --output report.html

Each part of the page is a module in `sections/`, which is found without a list (docs/report.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curation.files import whole_file
from curation.freshness import find_stale_by_ledgers
from curation.manifest.manifest import Manifest
from curation.report.facts import Facts
from curation.report.funnel import FunnelRow, funnel, render_funnel
from curation.report.hosts import render_hosts
from curation.report.page import render_page
from curation.report.stages import count_units, render_stages
from curation.report.trainings import check_runs
from curation.stage_log import read_running_stage
from curation.storage import Root

__all__ = ["FunnelRow", "describe_status", "funnel", "status_text", "write_html"]


def status_text(root: Root) -> str:
    """The funnel of `root` as a table in plain text, stale tables with the command that renews each, the stage that is
    at work, units that wait, and the largest hosts of a running download. Tables are counted as they are, whatever has
    been damaged.
    """
    stale = "".join(f"{sentence}\n" for sentence in find_stale_by_ledgers(root))
    parts = (render_funnel(funnel(Manifest(root, check="nothing"))), stale, render_stages(root), render_hosts(root))
    return "\n".join(part for part in parts if part)


def describe_status(root: Root) -> dict[str, Any]:
    """What `status_text` says, for programs: `funnel` and `units` row by row, `stale` sentences, and the `running`
    stage, None when none is. Shares are of all metadata rows.
    """
    running = read_running_stage(root)
    return {
        "root": root.base,
        "funnel": [asdict(row) for row in funnel(Manifest(root))],
        "stale": list(find_stale_by_ledgers(root)),
        "units": [asdict(count) for count in count_units(root)],
        "running": asdict(running) if running else None,
    }


def write_html(root: Root, output: str | Path, runs: Sequence[str | Path] = ()) -> None:
    """Write the report of `root` to the file `output`: one page that loads nothing from anywhere.

    `runs` are folders of trainings that it shows besides those under the root.

    Raises UserError when the folder of `output` does not exist, and for a folder of `runs` that is of no training.
    """
    check_runs(runs)
    with whole_file(Path(output)) as page, Manifest(root) as manifest:
        page.write(render_page(Facts(manifest, runs)).encode())
