"""root.json: the version of the layout, the version of the project, and in a sealed root the sha256 of each ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curation.records import parse_json
from curation.schema import PACKED_FORMAT, ROOT_FORMAT, SEALED_FORMAT


@dataclass(frozen=True, kw_only=True)
class RootRecord:
    """What root.json says. `sums` maps each table to the sha256 of its ledger; None in a root that is not sealed."""

    format: int
    version: str
    sums: Mapping[str, str] | None = None

    def fields(self) -> dict[str, Any]:
        """The JSON object, in a sealed root with a sum of itself."""
        if self.sums is None:
            return {"format": self.format, "version": self.version}
        named = {"format": self.format, "version": self.version, "sums": dict(self.sums)}
        return named | {"sha256": _sum_fields(named)}


def _sum_fields(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def parse_record(data: bytes) -> RootRecord:
    """What `data`, the bytes of root.json, says. Raises ValueError when it is damaged.

    A record of another format is returned without its sums: its reader refuses it.
    """
    fields = parse_json(data)
    if not isinstance(fields, dict) or not isinstance(fields.get("format"), int):
        raise ValueError("it names no format")
    record = RootRecord(format=fields["format"], version=str(fields.get("version")))
    if record.format == ROOT_FORMAT and "sums" in fields:
        raise ValueError("a root of its format has no sums")
    if record.format not in (SEALED_FORMAT, PACKED_FORMAT):
        return record
    stated = fields.pop("sha256", None)
    sums = fields.get("sums")
    if stated != _sum_fields(fields) or not isinstance(sums, dict):
        raise ValueError("its sum is not that of its content")
    return RootRecord(format=record.format, version=record.version, sums=sums)
