"""What one packing is made from and what it makes: its version, the columns of its index, and its publication."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.download.withdrawn import Lists, describe_lists
from curation.errors import UserError
from curation.freshness import Fingerprints, check_fresh
from curation.recipe.config import PackConfig
from curation.schema import DOWNLOADS, TRAIN_INDEX, samples_schema
from curation.settings import content_settings
from curation.storage import Root, fingerprint
from curation.sums.seal import is_whole
from curation.tables import (
    count_all_captions,
    score_tables,
    train_index_file,
    train_shard,
    train_sizes_file,
    train_summary_file,
    unit_file,
)

LOCATION = ("shard", "offset", "size", "stored_sha256")
"""Columns of downloads that say where a picture lies now; the index says where it lies in the train shard."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One packing, as every task needs it.

    `fp` names it, `scores` are the tables that it reads, `rows` the columns that are known of a kept row, and `columns`
    those of its index.
    """

    root: Root
    fp: str
    pack: PackConfig
    scores: tuple[str, ...]
    rows: pa.Schema
    columns: pa.Schema

    def shard(self, number: int) -> str:
        return train_shard(self.fp, number)

    def part(self, number: int) -> str:
        return train_index_file(self.fp, number)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A version that is to be made: from these files of the selection, and recorded with `config` and `inputs`."""

    version: Version
    selection_files: tuple[str, ...]
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    previous: Mapping[str, Any] | None
    """The current index before it."""


def find_work(root: Root, pack: PackConfig, refused: Lists) -> Work | None:
    """What is to be packed; None where the current train shards are those of the current selection.

    `refused` are the lists that the recipe names. Raises UserError without a selection, and for one that was made from
    something else than the root holds now.
    """
    selection = root.current("selection")
    if selection is None:
        raise UserError(f"{root.base} has no selection: run `curate select` first.")
    known = Fingerprints(root)
    check_fresh(known, "selection")
    lists = describe_lists(refused, root)
    if any(selection["inputs"].get(name) != value for name, value in lists.items()):
        raise UserError(
            "selection was made with other opt-out lists or blocklists than the recipe names now: run `curate select`."
        )
    scores = read_score_schemas(root, root.units("samples"))
    inputs = {name: known.of(name) for name in ("samples", "downloads", *scores)}
    inputs["selection"] = selection["fingerprint"]
    config = content_settings(pack)
    previous = root.current("train_index")
    if previous is not None and known.is_current("train_index", config, inputs) and _is_packed(root):
        return None
    num_captions = count_all_captions(root)
    version = Version(
        root=root,
        fp=fingerprint({"pack": config, "inputs": inputs}),
        pack=pack,
        scores=tuple(scores),
        rows=build_row_schema(scores, num_captions),
        columns=build_index_schema(scores, pack.captions, num_captions),
    )
    files = tuple(selection["files"])
    return Work(version=version, selection_files=files, config=config, inputs=inputs, previous=previous)


def _is_packed(root: Root) -> bool:
    """Whether every file of the current index and its shards is there; what somebody deleted is packed again."""
    return is_whole(root, "train") and is_whole(root, "train_index")


def read_score_schemas(root: Root, units: Sequence[str]) -> dict[str, pa.Schema]:
    """Score tables that cover every unit, with their columns besides uid; none while there are no units."""
    schemas = {}
    for table in score_tables(root):
        if units and set(units) <= set(root.units(table)):
            schema = root.read_parquet(unit_file(table, units[0])).schema
            schemas[table] = pa.schema([field for field in schema if field.name != "uid"])
    return schemas


def build_row_schema(scores: Mapping[str, pa.Schema], num_captions: int = 1) -> pa.Schema:
    """What is known of a row: the columns of samples, downloads and `scores`, each as the first of them has it."""
    fields: dict[str, pa.Field] = {}
    for field in _list_fields(scores, num_captions):
        fields.setdefault(field.name, field)
    return pa.schema([field.remove_metadata().with_nullable(True) for field in fields.values()])


def _list_fields(scores: Mapping[str, pa.Schema], num_captions: int) -> list[pa.Field]:
    return [*samples_schema(num_captions), *DOWNLOADS, *(field for schema in scores.values() for field in schema)]


def build_index_schema(
    scores: Mapping[str, pa.Schema], captions: Mapping[str, float], num_captions: int = 1
) -> pa.Schema:
    """Columns of train_index: where each member lies, then all that is known of the sample.

    `caption` is what the .txt says; the sample's own is `original_caption` where another may have been taken.
    Raises UserError when a column of `captions` is not among them, or no text.
    """
    fields = {field.name: field for field in TRAIN_INDEX}
    for field in _list_fields(scores, num_captions):
        if field.name in LOCATION:
            continue
        # The index's own `sha256` is that of the stored picture, as readers check it.
        fields.setdefault("fetched_sha256" if field.name == "sha256" and "sha256" in fields else field.name, field)
    for name in captions:
        if name not in fields or fields[name].type != pa.string():
            texts = ", ".join(n for n, f in fields.items() if f.type == pa.string() and n not in TRAIN_INDEX.names)
            raise UserError(f"pack.captions names {name!r}, which is no column of text; those are {texts}.")
    if set(captions) != {"caption"}:
        fields["original_caption"] = fields["caption"]
    return pa.schema([field.with_name(name) for name, field in fields.items()])


def publish_version(work: Work, shards: Iterable[Mapping[str, Any]]) -> None:
    """Write sizes.json and summary.json and make this version of shards and index the current one, the index last.

    `shards` are what `curation.packing.shard.write_shard` says of each, with its number as `shard`. Raises UserError
    when there are none.
    """
    version = work.version
    root, fp = version.root, version.fp
    written = sorted(shards, key=lambda row: int(row["shard"]))
    check_any(len(written))
    sizes, summary = train_sizes_file(fp), train_summary_file(fp)
    named = {Path(version.shard(row["shard"])).name: {k: v for k, v in row.items() if k != "shard"} for row in written}
    root.publish_json(sizes, {name: row["num_samples"] for name, row in named.items()})
    totals = {key: sum(row[key] for row in written) for key in ("num_samples", "num_bytes")}
    root.publish_json(summary, {**totals, "num_shards": len(written), "shards": named})
    tars = [version.shard(row["shard"]) for row in written]
    root.publish_current("train", fp, [sizes, summary, *tars], work.config, work.inputs)
    root.publish_current("train_index", fp, [version.part(row["shard"]) for row in written], work.config, work.inputs)


def check_any(num_rows: int) -> None:
    """Raise UserError when the selection keeps no row."""
    if not num_rows:
        raise UserError("The selection keeps no row: relax the rules (`curate status ROOT` shows which one says no).")


def check_largest(pack: PackConfig, num_bytes: int) -> None:
    """Raise UserError when one sample takes `num_bytes`, more than a shard may have."""
    if pack.num_bytes_per_shard is not None and num_bytes > pack.num_bytes_per_shard:
        raise UserError(
            f"pack.num_bytes_per_shard is {pack.num_bytes_per_shard:,}, and one sample alone takes {num_bytes:,} bytes."
        )
