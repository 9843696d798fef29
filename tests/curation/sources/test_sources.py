"""Published schemas into one: every set is recognised, dirt becomes NULL, a missing column is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.sources import column_expressions, detect_format, list_formats, load_format

COLUMNS = {
    "laion400m": "SAMPLE_ID URL TEXT HEIGHT WIDTH LICENSE NSFW similarity",
    "laion2b": "URL TEXT WIDTH HEIGHT similarity hash punsafe pwatermark aesthetic",
    "relaion": "url caption punsafe pwatermark key status",
    "coyo": "id url text width height image_phash text_length word_count num_tokens_bert num_tokens_gpt num_faces "
    "clip_similarity_vitb32 clip_similarity_vitl14 nsfw_score_opennsfw2 nsfw_score_gantman watermark_score "
    "aesthetic_score_laion_v2",
    "img2dataset": "url caption key status error_message width height original_width original_height similarity",
    "laion_coco": "URL TEXT top_caption all_captions all_similarities WIDTH HEIGHT similarity hash pwatermark punsafe",
    "coyo_labeled": "id url imagehash labels label_probs width height",
    "cc2dataset": "uid url alt cc_filename page_url",
    "sbu": "image_urls captions user_names",
    "pairs": "url text",
    "url_list": "url",
    "commonpool": "uid url text original_width original_height clip_b32_similarity_score clip_l14_similarity_score "
    "face_bboxes sha256",
}


BY_NAME = ("cc3m", "cc12m", "laion_high_resolution", "datacomp1b")
"""Formats whose columns other sets have too: recipes name them."""


def test_every_shipped_format_is_tested_here() -> None:
    assert {*COLUMNS, *BY_NAME} == set(list_formats())


@pytest.mark.parametrize("name", COLUMNS)
def test_detects(name: str) -> None:
    columns = COLUMNS[name].split()
    assert detect_format(columns, "f") == name
    if not load_format(name).only:
        assert detect_format([c.swapcase() for c in columns] + ["extra"], "f") == name


def test_refuses_an_unknown_schema() -> None:
    with pytest.raises(UserError, match="fits no known metadata schema .columns: a, b"):
        detect_format(["a", "b"], "f.parquet")
    with pytest.raises(UserError, match="no source format 'laion5b'; known: auto, cc12m, cc2dataset, cc3m"):
        load_format("laion5b")


def test_a_missing_column_is_named() -> None:
    schema = pa.schema([("URL", pa.string()), ("similarity", pa.float64())])
    with pytest.raises(
        UserError, match=r"f.parquet has no column for caption \(expected TEXT; it has URL, similarity\)"
    ):
        column_expressions("laion2b", schema, "f.parquet")


def normalise(name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> list[dict[str, Any]]:
    table = pa.Table.from_pylist(rows, schema=schema)
    selected = ", ".join(f"{sql} as {target}" for target, sql in column_expressions(name, schema, "f").items())
    relation = duckdb.connect().from_arrow(table)
    result = relation.query("t", f"select {selected.replace('`', chr(34))} from t").to_arrow_table()
    return result.to_pylist()


@pytest.mark.parametrize("size_type", [pa.int32(), pa.int64(), pa.float64(), pa.string()])
def test_dirt_becomes_null(size_type: pa.DataType) -> None:
    schema = pa.schema([("URL", pa.string()), ("TEXT", pa.string()), ("WIDTH", size_type), ("HEIGHT", size_type)])
    schema = schema.append(pa.field("similarity", pa.float64())).append(pa.field("punsafe", pa.float32()))
    sizes = [640, 0] if size_type != pa.string() else ["640", "zero"]
    nan = float("nan")
    rows = [
        {"URL": "u", "TEXT": None, "WIDTH": sizes[0], "HEIGHT": sizes[1], "similarity": 6016.0, "punsafe": 0.25},
        {"URL": "u", "TEXT": "t", "WIDTH": None, "HEIGHT": sizes[0], "similarity": 0.5, "punsafe": 1.5},
        {"URL": None, "TEXT": "", "WIDTH": None, "HEIGHT": None, "similarity": nan, "punsafe": nan},
    ]
    found = normalise("laion2b", rows, schema)
    assert [(r["claimed_width"], r["claimed_height"]) for r in found] == [(640, None), (None, 640), (None, None)]
    assert [r["clip_similarity"] for r in found] == [None, 0.5, None]
    assert [r["punsafe"] for r in found] == [0.25, None, None]
    assert [r["caption"] for r in found] == [None, "t", ""]


@pytest.mark.parametrize(("file", "name"), [("laion400m_rows", "laion400m"), ("coyo_700m_rows", "coyo")])
def test_real_rows(shared_data: Path, file: str, name: str) -> None:
    table = pq.read_table(shared_data / f"{file}.parquet")
    assert detect_format(table.schema.names, file) == name
    found = normalise(name, table.to_pylist(), table.schema)
    assert len(found) == table.num_rows
    assert all(r["url"].startswith("http") and r["clip_similarity"] is not None for r in found)
