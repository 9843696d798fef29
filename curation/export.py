"""Exports packed rows for other tools: DataComp's uid file, a list of shards, parquet for Hugging Face `datasets`.

curate export ROOT --format uids --output uids.npy --where "clip_similarity >= 0.3"
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.files import whole_file
from curation.manifest.manifest import Manifest
from curation.progress import bar
from curation.shards import picture_extension, read_member
from curation.storage import Root

UID_DTYPE = np.dtype("u8,u8")
"""The two halves of a uid, as DataComp's baselines write them and its resharder reads them."""
ROWS_PER_GROUP = 256
"""Rows in a row group with pictures, of which readers load one at a time."""
_BATCH_ROWS = 100_000
_PLACES = ("shard", "offset", "size", "json_offset", "json_size", "txt_offset", "txt_size")
_FEATURES = {
    pa.string(): "string",
    pa.bool_(): "bool",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.float32(): "float32",
    pa.float64(): "float64",
}


def export(root: Root, form: str, output: str | Path, *, where: str = "") -> None:
    """Write the rows of train_index that meet `where` to the file `output`, which appears once it is whole.

    Formats: "uids" (.npy of dtype u8,u8, sorted; of rows of a DataComp pool the pool's own), "shards" (the path or URL
    of each shard, one a line), "parquet" (every column but the places, and `image` with the stored bytes).

    Raises UserError: nothing packed, wrong SQL, no row, no such folder, or a shard of which only a part is wanted.
    """
    if form not in _WRITERS:
        raise UserError(f"format is {form!r}; allowed: {', '.join(_WRITERS)}.")
    if root.current("train_index") is None:
        raise UserError(f"{root.base} has no train_index: run `curate pack` first.")
    manifest = Manifest(root)
    condition = f"({where}\n)" if where.strip() else "true"
    if not manifest.query(f"select 1 from train_index where {condition} limit 1").fetchall():
        raise UserError(f"No row of {root.base} is left WHERE {where}: try the condition with `curate query`.")
    with whole_file(Path(output)) as sink:
        _WRITERS[form](manifest, condition, sink)


def _write_uids(manifest: Manifest, condition: str, sink: IO[bytes]) -> None:
    """The uids by which DataComp's tools know the rows: a pool's own, which is its `source_id`, else ours."""
    has_source_id = "source_id" in manifest.query("select * from train_index limit 0").columns
    own = (
        "case when regexp_full_match(source_id, '[0-9a-fA-F]{32}') then source_id else uid end"
        if has_source_id
        else "uid"
    )
    relation = manifest.query(f"select distinct unhex({own}) as uid from train_index where {condition}")
    parts = []
    with bar(_count_rows(manifest, condition), "export uids") as progress:
        for batch in relation.to_arrow_reader(_BATCH_ROWS):
            parts.append(b"".join(batch["uid"].to_pylist()))
            progress.update(batch.num_rows)
    halves = np.frombuffer(b"".join(parts), ">u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    uids = np.empty(len(halves), UID_DTYPE)
    uids["f0"], uids["f1"] = halves[order, 0], halves[order, 1]
    np.save(sink, uids)


def _write_shards(manifest: Manifest, condition: str, sink: IO[bytes]) -> None:
    chosen, totals = Counter[str](), Counter[str]()
    relation = manifest.query(f"select shard, coalesce({condition}, false) as chosen from train_index")
    with bar(_count_rows(manifest, "true"), "export shards") as progress:
        for batch in relation.to_arrow_reader(_BATCH_ROWS):
            totals.update(batch["shard"].to_pylist())
            chosen.update(batch["shard"].filter(batch["chosen"]).to_pylist())
            progress.update(batch.num_rows)
    partly = sum(0 < chosen[shard] < total for shard, total in totals.items())
    if partly:
        raise UserError(
            f"{partly} of {len(totals)} shards hold rows besides the wanted ones, which a list of shards cannot leave "
            f"out: select and pack them, export uids, or give the condition to trainer.data.Loader."
        )
    for shard in sorted(chosen):
        sink.write(f"{manifest.root.url(shard)}\n".encode())


def _write_parquet(manifest: Manifest, condition: str, sink: IO[bytes]) -> None:
    num_rows = _count_rows(manifest, condition)
    relation = manifest.query(f'select * from train_index where {condition} order by shard, "offset"')
    reader = relation.to_arrow_reader(ROWS_PER_GROUP)
    kept = [field for field in reader.schema if field.name not in _PLACES]
    image = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    schema = pa.schema([*kept, image], metadata=_describe_features(kept))
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer, bar(num_rows, "export parquet") as progress:
        for batch in reader:
            pictures = [
                _read_picture(manifest.root, row) for row in batch.select(["uid", "sha256", *_PLACES[:3]]).to_pylist()
            ]
            columns = [batch[field.name] for field in kept]
            writer.write_table(pa.Table.from_arrays([*columns, pa.array(pictures, image.type)], schema=schema))
            progress.update(batch.num_rows)


def _count_rows(manifest: Manifest, condition: str) -> int:
    return int(manifest.query(f"select count(*) from train_index where {condition}").fetchall()[0][0])


def _read_picture(root: Root, row: dict[str, Any]) -> dict[str, Any]:
    data = read_member(root, row["shard"], row["offset"], row["size"], row["sha256"])
    return {"bytes": data, "path": f"{row['uid']}.{picture_extension(data)}"}


def _describe_features(fields: list[pa.Field]) -> dict[bytes, bytes] | None:
    """The metadata by which `datasets` decodes `image`; None when it has no word for the type of a column."""
    if any(field.type not in _FEATURES for field in fields):
        return None
    features: dict[str, Any] = {f.name: {"dtype": _FEATURES[f.type], "_type": "Value"} for f in fields}
    features["image"] = {"_type": "Image"}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


_WRITERS = {"uids": _write_uids, "shards": _write_shards, "parquet": _write_parquet}
