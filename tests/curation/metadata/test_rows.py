"""Rows of metadata files: which columns are read, what is no text, and shares that hold every row once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from curation.fetch.domains import registered_domain
from curation.metadata.inputs import Input, find_inputs
from curation.metadata.rows import PLAIN_HOST, divide, find_domains, read_shares, rows_schema
from curation.recipe.config import Recipe, SourceConfig
from curation.schema import uid

NUM = 4
BASE = {
    "URL": [f"http://h.example/{i}.jpg" for i in range(NUM)],
    "TEXT": [f"picture {i}" for i in range(NUM)],
    "similarity": [0.3] * NUM,
    "hash": list(range(NUM)),
}
PLAIN = pa.table(BASE)


def read(path: Path, **options: Any) -> list[dict[str, Any]]:
    recipe = Recipe(sources=(SourceConfig(name="m", paths=(str(path),), **options),))
    shares = divide(find_inputs(recipe), 3)
    batches = [batch for share in shares for batch in read_shares(share)]
    schema = rows_schema(recipe.sources[0].num_captions)
    assert all(batch.schema.equals(schema) for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def write(folder: Path, table: pa.Table, name: str = "part.parquet") -> Path:
    pq.write_table(table, folder / name)
    return folder / name


UNREAD = {
    "timestamp_ns": pa.array(pd.Series([pd.Timestamp("2021-03-01T12:00:00.123456789")] * NUM)),
    "float16": pa.array(np.float16([0.5] * NUM), pa.float16()),
    "time": pa.array([1] * NUM, pa.time64("us")),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"] * NUM, pa.binary(16))),
    "decimal256": pa.array([1] * NUM, pa.decimal256(50, 2)),
    "text": pa.array(BASE["TEXT"]),
    "similarities": pa.array([[0.5]] * NUM),
}


@pytest.mark.parametrize("name", UNREAD)
def test_columns_that_nobody_reads_do_not_matter(tmp_path: Path, name: str) -> None:
    table = PLAIN.append_column(name, UNREAD[name])
    rows = read(write(tmp_path, table.append_column("Extra", UNREAD[name]).append_column("extra", UNREAD[name])))
    assert [row["url"] for row in rows] == BASE["URL"]
    assert [row["uid"] for row in rows] == [uid(u, t) for u, t in zip(BASE["URL"], BASE["TEXT"], strict=True)]
    assert [(row["file"], row["row"], row["reason"]) for row in rows] == [("part.parquet", i, None) for i in range(NUM)]


@pytest.mark.parametrize("name", ["part:0.parquet", "a b+c%20.parquet", "_part.parquet", ".part.parquet"])
def test_any_name_of_a_file_is_read(tmp_path: Path, name: str) -> None:
    assert [row["file"] for row in read(write(tmp_path, PLAIN, name))] == [name] * NUM


def test_the_spelling_of_the_format_comes_before_others(tmp_path: Path) -> None:
    table = pa.table({"text": ["other"] * NUM} | BASE)
    assert [row["caption"] for row in read(write(tmp_path, table))] == BASE["TEXT"]


def test_two_columns_for_one_are_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([*PLAIN.columns, PLAIN["TEXT"]], names=[*PLAIN.column_names, "TEXT"])
    with pytest.raises(UserError, match=r"has 2 columns for TEXT \(TEXT and TEXT\): rename or drop one"):
        read(write(tmp_path, twice))
    spelled = PLAIN.rename_columns(["URL", "Text", "similarity", "hash"]).append_column("tExt", PLAIN["TEXT"])
    with pytest.raises(UserError, match=r"has 2 columns for TEXT \(Text and tExt\)"):
        read(write(tmp_path, spelled))


def test_a_list_of_numbers_is_no_number(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN.set_column(2, "similarity", pa.array([[0.3, 0.2]] * NUM)))
    with pytest.raises(UserError, match=r"column similarity is list<.*> and clip_similarity needs a number"):
        read(path)
    assert len(read(path, columns={"clip_similarity": ()})) == NUM


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "list"])
def test_what_is_no_utf8_is_refused_row_by_row(tmp_path: Path, kind: str) -> None:
    raw = pa.array([b"a red door", b"caf\xe9 terrace", None, b"cut in half \xe4\xb8"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), NUM, raw.buffers())
    made: dict[str, pa.Array] = {
        "string": text,
        "large_string": pa.Array.from_buffers(pa.large_string(), NUM, raw.cast(pa.large_binary()).buffers()),
        "binary": raw,
        "list": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), text),
    }
    rows = read(write(tmp_path, PLAIN.set_column(1, "TEXT", made[kind])))
    assert [row["reason"] for row in rows] == [None, "not_text", None, "not_text"]
    assert [row["caption"] for row in rows] == ["a red door", None, None, None]
    assert [row["uid"] is None for row in rows] == [False, True, False, True]


def test_what_is_no_utf8_elsewhere_is_unknown(tmp_path: Path) -> None:
    raw = pa.array([b"1", b"\xff", b"3", None], pa.binary())
    ids = pa.Array.from_buffers(pa.string(), NUM, raw.buffers())
    rows = read(write(tmp_path, PLAIN.set_column(3, "hash", ids)))
    assert [(row["source_id"], row["reason"]) for row in rows] == [("1", None), (None, None), ("3", None), (None, None)]


def test_whole_numbers_among_floats_are_the_same_identifiers(tmp_path: Path) -> None:
    ids = pa.array([1.0, 1e10, 2.5, None])
    rows = read(write(tmp_path, PLAIN.set_column(3, "hash", ids)))
    assert [row["source_id"] for row in rows] == ["1", "10000000000", "2.5", None]


def test_a_recipe_says_which_column_is_which(tmp_path: Path) -> None:
    table = pa.table(
        {"uid": list("abcd"), "link": BASE["URL"], "best": ["", None, "c", "d"], "alt": ["w", "x", "y", ""]}
    )
    path = write(tmp_path, table)
    rows = read(path, columns={"url": "link", "caption": ("best", "alt"), "source_id": "UID"})
    assert [row["caption"] for row in rows] == ["w", "x", "c", "d"]
    assert [row["caption_2"] for row in rows] == ["w", "x", "y", ""], "each further caption is a column of its own"
    assert [row["uid"] for row in rows] == [uid(row["url"], row["caption"]) for row in rows]
    assert [row["source_id"] for row in rows] == list("abcd")
    with pytest.raises(UserError, match="has no column no, which columns .* names for caption; it has uid, link"):
        read(path, columns={"url": "link", "caption": "no"})
    with pytest.raises(UserError, match=r"has no column for caption \(expected TEXT;.*say which column it is"):
        read(path, columns={"url": "link"}, format="laion2b")
    with pytest.raises(ValueError, match="columns names 'domain', which metadata cannot give"):
        SourceConfig(name="m", paths=("x",), columns={"domain": "d"})


LISTS: dict[str, list[list[Any] | None]] = {
    "all_captions": [["one", "two"], [], None, ["", None, "three"]],
    "all_scores": [[0.25, 0.5], [0.75], [2.0], None],
}


@pytest.mark.parametrize("kind", ["parquet", "large", "fixed", "jsonl"])
def test_an_element_of_a_list_can_be_chosen(tmp_path: Path, kind: str) -> None:
    lists = dict(LISTS)
    path = tmp_path / "f"
    if kind == "jsonl":
        rows = [dict(zip(["link", *lists], row, strict=True)) for row in zip(BASE["URL"], *lists.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        text = pa.large_list(pa.string()) if kind == "large" else pa.list_(pa.string(), 3 if kind == "fixed" else -1)
        padded = [
            None if v is None else (v + [None] * 3)[: 3 if kind == "fixed" else len(v)] for v in LISTS["all_captions"]
        ]
        arrays = [pa.array(BASE["URL"]), pa.array(padded, text), pa.array(LISTS["all_scores"])]
        path = write(tmp_path, pa.table(arrays, ["link", *lists]))
    columns = {"caption": ("ALL_CAPTIONS[1]", "all_captions[2]", "all_captions[3]"), "clip_similarity": "all_scores[2]"}
    rows = read(path, columns={"url": "link", **columns})
    assert [row["caption"] for row in rows] == ["one", None, None, "three"]
    assert [row["caption_2"] for row in rows] == ["two", None, None, None]
    assert [row["caption_3"] for row in rows] == [None, None, None, "three"]
    assert [row["clip_similarity"] for row in rows] == [0.5, None, None, None]


def test_an_element_of_what_is_no_list_is_refused_and_a_column_may_be_called_so(tmp_path: Path) -> None:
    path = write(tmp_path, pa.table({"url": BASE["URL"], "c": list("abcd"), "d[2]": list("efgh"), "d": list("ijkl")}))
    rows = read(path, columns={"url": "url", "caption": "d[2]"})
    assert [row["caption"] for row in rows] == list("efgh")
    with pytest.raises(UserError, match=r"column c is string and no list, so there is no c\[1\]"):
        read(path, columns={"url": "url", "caption": "c[1]"})
    with pytest.raises(UserError, match=r"has no column c\[0\], which columns"):
        read(path, columns={"url": "url", "caption": "c[0]"})
    (tmp_path / "f.csv").write_text("url,c\nhttp://a.example/1,x\n")
    with pytest.raises(UserError, match=r"f.csv: column c is string and no list"):
        read(tmp_path / "f.csv", columns={"url": "url", "caption": "c[1]"})


def test_files_with_fewer_captions_have_null_in_the_others(tmp_path: Path) -> None:
    table = pa.table({"url": BASE["URL"], "a": list("abcd"), "b": [1, 2, 3, None], "c": ["x", None, "y", ""]})
    path = write(tmp_path, table)
    two = SourceConfig(name="two", paths=(str(path),), columns={"url": "url", "caption": ("c", "a")})
    three = SourceConfig(name="three", paths=(str(path),), columns={"url": "url", "caption": ("c", "b", "a")})
    shares = divide(find_inputs(Recipe(sources=(two, three))), 3)
    rows = [row for share in shares for batch in read_shares(share) for row in batch.to_pylist()]
    assert [(row["source"], row["caption"], row["caption_2"], row["caption_3"]) for row in rows] == [
        ("two", "x", "a", None), ("two", "b", "b", None), ("two", "y", "c", None), ("two", "d", "d", None),
        ("three", "x", "1", "a"), ("three", "2", "2", "b"), ("three", "y", "3", "c"), ("three", "d", None, "d"),
    ]  # fmt: skip


URLS = (
    "http://www.Shop.co.uk/x", "https://shop.co.uk:443", "http://shop.co.uk:443@h.example/", "http://shop.co.uk:",
    "http://u:p@h.example:80/", "https://h.example?x", "https://h.example#x", "http://h.example\\@g.example/",
    "http://h.example.", "http://./", "http://-_.example", "http://10.0.0.1/", "http://[::1]/", "http://[::1",
    "http://h.exa\tmple/", "http://h.example\n.g.example", "http://h.example \n", "HTTP://h.example/", "h.example",
    "//h.example/", "http:///h.example", "http://ü.example/", "http://xn--tda.example/", "http://\uff48.example",
    "http://localhost", "http://a.b.c.github.io/x", "http://h.example:x/", "http://h.example:80x/", "http://h..example/",
    "", "  ", None, " http://h.example", "ftp://h.example/",
)  # fmt: skip


@given(st.lists(st.one_of(st.sampled_from(URLS), st.text("htp:/sw.@exampl[]1?# \n\tü%\\", max_size=20)), max_size=20))
def test_the_domains_of_plain_hosts_are_those_of_a_full_parser(urls: list[str | None]) -> None:
    urls += [f"http://{url}" for url in urls if url]
    column = pa.chunked_array([pa.array(urls, pa.string())])
    with duckdb.connect() as connection:
        connection.register("rows", pa.table({"url": column}))
        found = connection.sql(f"select regexp_extract(url, '{PLAIN_HOST}', 1) as host from rows").to_arrow_table()
    assert find_domains(column, found["host"]).to_pylist() == [registered_domain(url or "") for url in urls]


def test_a_condition_refuses_what_it_is_not_true_of_and_leaves_other_reasons(tmp_path: Path) -> None:
    urls = ["http://a.example/1", None, "http://b.example/3", "http://b.example/4"]
    table = pa.table(BASE | {"URL": pa.array(urls), "similarity": [0.3, 0.1, None, 0.26]})
    rows = read(write(tmp_path, table), where="clip_similarity >= 0.26 and domain <> 'a.example'")
    assert [row["reason"] for row in rows] == ["where", "no_url", "where", None]
    assert [row["uid"] is None for row in rows] == [False] * NUM


@given(st.lists(st.lists(st.integers(0, 30), max_size=5), max_size=8), st.integers(1, 50))
def test_shares_hold_every_part_once_and_in_order(files: list[list[int]], num_rows: int) -> None:
    columns = {"url": ("url",)}
    items = [
        Input(
            source="s", path=f"{i}", format="x", columns=columns, mapped=False, fingerprint="", num_rows=sum(parts),
            parts=tuple(parts),
        )
        for i, parts in enumerate(files)
    ]  # fmt: skip
    shares = divide(items, num_rows)
    found = [(share.position, group) for one in shares for share in one for group in share.groups]
    assert found == [(i, group) for i, parts in enumerate(files) for group in range(len(parts))]
    for share in (share for one in shares for share in one):
        assert share.first_row == sum(files[share.position][: share.groups[0]])
