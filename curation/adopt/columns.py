"""Columns of any source as those of samples, with img2dataset's own and the reason why a row is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from curation.adopt import caption_columns
from curation.metadata.text_columns import is_text, simplify
from curation.schema import UID_SQL, RejectReason, name_captions
from curation.sources import TARGETS, choose_columns, expression, is_list

FORMAT = "img2dataset"
OWN = {"key": "varchar", "status": "varchar", "error_message": "varchar", "sha256": "varchar"}
OWN |= {"original_width": "integer", "original_height": "integer"}
"""img2dataset's own columns that `adopt` reads, and their types in DuckDB."""
REFUSED = "refused"
_URL_AND_CAPTION = {"url", "caption", "text"}


def choose(schema: pa.Schema, path: str) -> dict[str, tuple[str, ...]]:
    """For each column of samples, and each of OWN, the file's own column; none where it has none that can be used.

    `caption` may have several columns, which `normalise` spreads over `caption`, `caption_2` …
    Raises UserError when it has no column for URLs, has one twice, or has URL or caption in a type that is no text.
    """
    usable = pa.schema([field for field in schema if field.name.lower() in _URL_AND_CAPTION or _is_plain(field.type)])
    has_caption = any(name.lower() in ("caption", "text") for name in usable.names)
    if not has_caption:
        usable = usable.append(pa.field("caption", pa.string()))
    chosen = choose_columns(FORMAT, usable, path)
    own = {name: tuple(known for known in usable.names if known.lower() == name)[:1] for name in OWN}
    texts = (*(chosen["caption"] if has_caption else ()), *caption_columns.find_columns(schema))
    return chosen | own | {"caption": tuple(dict.fromkeys(texts))}


def _is_plain(dtype: pa.DataType) -> bool:
    if isinstance(dtype, pa.BaseExtensionType):
        return _is_plain(dtype.storage_type)
    if pa.types.is_dictionary(dtype):
        return _is_plain(dtype.value_type)
    unusable = (pa.types.is_nested, is_list, pa.types.is_interval, pa.types.is_duration)
    return is_text(dtype) or not any(test(dtype) for test in unusable)


def normalise(
    columns: Mapping[str, pa.Array],
    chosen: Mapping[str, Sequence[str]],
    places: Sequence[str | None],
    refused: Sequence[str | None],
) -> pa.Table:
    """The rows of `columns` with uid, the columns of samples that metadata gives, further captions, OWN, and REFUSED.

    `places` are URLs for rows that have none. `refused` has the reason why a row becomes no sample where it is known;
    rows without any URL and rows whose URL or caption is no UTF-8 are refused here.
    """
    texts, no_text = caption_columns.spread([columns[name] for name in chosen["caption"]])
    simple = {name: simplify(column) for name, column in columns.items() if name not in chosen["caption"]}
    # Numbered names: DuckDB takes TEXT and text for one column.
    aliases = {name: f"c{number}" for number, name in enumerate(simple)}
    selected = {
        target: expression(target, [(aliases[name], simple[name][0].type) for name in chosen[target]])
        for target in TARGETS
        if target != "caption"
    }
    targets = [*TARGETS, *name_captions(max(1, len(texts)))[1:]]
    for number, target in enumerate(name_captions(max(1, len(texts)))):
        selected[target] = expression(target, [(f"t{number}", one.type) for one in texts[number : number + 1]])
    url = selected["url"]
    selected["url"] = f"case when {_is_blank(url)} then place else {url} end"
    for name, kind in OWN.items():
        selected[f"{name}_"] = f"try_cast({''.join(aliases[one] for one in chosen[name]) or 'null'} as {kind})"
    inner = ", ".join(f"{sql} as {target}" for target, sql in selected.items())
    own = ", ".join(f"{name}_ as {name}" for name in OWN)
    sql = (
        f"select case when {REFUSED} is null then {UID_SQL} end as uid, {', '.join(targets)}, {own}, "
        f"coalesce({REFUSED}, case when {_is_blank('url')} then '{RejectReason.NO_URL}' end) as {REFUSED} "
        f"from (select {REFUSED}, {inner} from rows_of_shard)"
    )
    broken = [no_text, *(simple[name][1] for name in chosen["url"])]
    added = {"place": pa.array(places, pa.string()), REFUSED: _find_reasons(broken, refused)}
    arrays = {aliases[name]: array for name, (array, _) in simple.items()} | added
    arrays |= {f"t{number}": one for number, one in enumerate(texts)}
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("rows_of_shard", pa.table(arrays))
        return connection.sql(sql).to_arrow_table()


def _is_blank(sql: str) -> str:
    return f"coalesce(trim({sql}), '') = ''"


def _find_reasons(broken: Sequence[np.ndarray | None], refused: Sequence[str | None]) -> pa.Array:
    """`refused`, and not_text for rows that one of `broken` marks."""
    reasons = list(refused)
    for wrong in broken:
        for row in () if wrong is None else np.flatnonzero(wrong):
            reasons[row] = reasons[row] or RejectReason.NOT_TEXT.value
    return pa.array(reasons, pa.string())


def combine(column: pa.ChunkedArray) -> pa.Array:
    """`column` in one piece."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
