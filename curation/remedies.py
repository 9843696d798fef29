"""What mends a file of a root that is damaged or missing, as the end of a sentence."""

from __future__ import annotations

_MADE_BY = {
    "plans": "ingest",
    "samples": "ingest",
    "rejects": "ingest",
    "downloads": "download",
    "embeddings": "embed",
    "duplicates": "dedupe",
    "selection": "select",
    "train": "pack",
    "train_index": "pack",
}
_MORE = {
    "ingest": "with the recipe of this root, which makes it again from the metadata",
    "download": "which fetches its pictures again",
}


def stage_of(rel: str) -> str | None:
    """The stage that makes the file `rel` (relative to ROOT), None when no stage does."""
    table = rel.partition("/")[0]
    if table.startswith("embeddings_"):
        return "embed"
    return "score" if table.startswith("scores_") else _MADE_BY.get(table)


def remedy(rel: str, is_there: bool = True) -> str:
    """What to do about the file `rel`, which is damaged or, unless `is_there`, missing."""
    stage = stage_of(rel)
    if stage is None:
        return _remedy_elsewhere(rel)
    if is_there and "/packed/" in rel:
        return f"run `curate compact --undo`, which saves its sound units, and then `curate {stage}` again"
    more = f", {_MORE[stage]}" if stage in _MORE else ""
    more = more.replace(", with", " with")
    return f"{'delete it and run' if is_there else 'run'} `curate {stage}` again{more}"


def _remedy_elsewhere(rel: str) -> str:
    if rel.startswith("raw/"):
        unit = rel.removeprefix("raw/").rpartition("-")[0]
        return f"delete downloads/{unit}.parquet and run `curate download` again, which fetches its pictures again"
    if rel.startswith("sums/") or rel == "root.json":
        return "restore it from a copy, or run `curate seal`, which reads the whole root and sums it anew"
    if rel.startswith("forget/"):
        return "delete it and run the same `curate forget` again"
    if rel.startswith("logs/"):
        return "delete it, nothing depends on it"
    return "restore it from a copy"
