"""What the sections of a report read: the manifest, and what several of them ask, found once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from curation.manifest.manifest import Manifest
from curation.report.funnel import FunnelRow, funnel
from curation.report.pictures import PictureBudget
from curation.report.selection import Selected, read_selected
from curation.report.tally import Tally, count_rows
from curation.storage import Root
from curation.tables import DOWNLOADS


class Facts:
    """One report at work. `runs` are folders of trainings that were named to it."""

    def __init__(self, manifest: Manifest, runs: Sequence[str | Path] = ()) -> None:
        self.manifest, self.runs = manifest, tuple(runs)
        self.budget = PictureBudget()

    @property
    def root(self) -> Root:
        return self.manifest.root

    @cached_property
    def funnel(self) -> list[FunnelRow]:
        return funnel(self.manifest)

    @cached_property
    def selected(self) -> Selected | None:
        """The current selection."""
        return read_selected(self.root)

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """The columns of the manifest with their types."""
        schema = self.manifest.query("select * from manifest limit 0").to_arrow_table().schema
        return {field.name: field.type for field in schema}

    @cached_property
    def has_downloads(self) -> bool:
        return bool(self.manifest.files(DOWNLOADS))

    @cached_property
    def tally(self) -> Tally:
        """What one pass over all rows counts."""
        return count_rows(self.manifest, self.types, self.selected)
