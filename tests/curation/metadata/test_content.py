"""Text files of metadata: recognised by content, read row by row, and the published sets in their true schemas."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import UserError
from curation.metadata.delimited import split_rows
from curation.metadata.inputs import find_inputs
from curation.metadata.parquet import read_columns
from curation.metadata.rows import divide, read_shares
from curation.recipe.config import Recipe, SourceConfig
from curation.schema import uid
from tests.support.published_sets import SETS, TEXTS, URLS
from tests.support.rot import flip_in_pages

ROWS = [
    {"url": "http://h.example/1.jpg", "text": 'a "red" door, open'},
    {"url": "http://h.example/2,3.jpg", "text": "two\nlines\r\nand\ttabs"},
    {"url": "http://h.example/4.jpg", "text": "Füße \u2028 und \x0b mehr"},
    {"url": "http://h.example/5.jpg", "text": None},
]
FRAME = pd.DataFrame(ROWS)


def read(path: Path, data: bytes | None = None, **options: Any) -> list[dict[str, Any]]:
    if data is not None:
        path.write_bytes(data)
    recipe = Recipe(sources=(SourceConfig(name="m", paths=(str(path),), **options),))
    batches = [batch for share in divide(find_inputs(recipe), 100) for batch in read_shares(share)]
    return [row for batch in batches for row in batch.to_pylist()]


def outcomes(rows: list[dict[str, Any]]) -> list[tuple[str | None, str | None, str | None]]:
    return [(row["url"], row["caption"], row["reason"]) for row in rows]


WRITTEN = {
    "csv": FRAME.to_csv(index=False).encode(),
    "tsv": FRAME.to_csv(index=False, sep="\t").encode(),
    "bom.csv": b"\xef\xbb\xbf" + FRAME.to_csv(index=False, lineterminator="\r\n").encode(),
    "semicolon.csv": FRAME.to_csv(index=False, sep=";").encode(),
    "jsonl": FRAME.to_json(orient="records", lines=True).encode(),
    "json": FRAME.to_json(orient="records").encode(),
    "columns.json": FRAME.to_json().encode(),
    "pretty.json": json.dumps(ROWS, indent=2).encode(),
}


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
@pytest.mark.parametrize("kind", WRITTEN)
def test_the_same_rows_are_the_same_whatever_the_file(tmp_path: Path, kind: str, compression: str) -> None:
    data = WRITTEN[kind]
    if compression:
        data = gzip.compress(data) if compression == "gzip" else pa.compress(data, "zstd", asbytes=True)
    rows = read(tmp_path / "no-extension", data)
    assert outcomes(rows) == [(row["url"], row["text"], None) for row in ROWS]
    assert [row["row"] for row in rows] == [0, 1, 2, 3]


def test_a_url_a_line(tmp_path: Path) -> None:
    rows = read(tmp_path / "u.txt", b"http://a.example/1,2.jpg\r\n\nHTTPS://b.example/\n no url\n")
    assert outcomes(rows) == [
        ("http://a.example/1,2.jpg", None, None),
        ("HTTPS://b.example/", None, None),
        ("no url", None, None),
    ]


def test_a_bad_row_of_csv_is_one_bad_row(tmp_path: Path) -> None:
    lines = [b"url,text", b"http://a/1,one", b'http://a/2,"never closed', b"http://a/3", b"http://a/4,four,extra",
             b"http://a/5,caf\xe9", b'http://a/6,"x" y', b"http://a/7,seven"]  # fmt: skip
    found = [(url and url[-1], reason) for url, _, reason in outcomes(read(tmp_path / "m.csv", b"\n".join(lines)))]
    bad = (None, "malformed")
    assert found == [("1", None), bad, bad, bad, ("5", "not_text"), bad, ("7", None)]


def test_a_bad_row_of_json_lines_is_one_bad_row(tmp_path: Path) -> None:
    lines = ['{"url": "http://a/1", "text": "one"}', "{", "[]", '{"url": "http://a/4", "text": "\\ud83c"}', "",
             '{"url": "http://a/5", "text": ["", "five"]}', '{"text": 6}']  # fmt: skip
    rows = read(tmp_path / "m.jsonl", "\n".join(lines).encode())
    assert [row["reason"] for row in rows] == [None, "malformed", "malformed", "not_text", None, "no_url"]
    assert [row["caption"] for row in rows] == ["one", None, None, None, "five", "6"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        ("url,text\n".encode("utf-16"), "is text in UTF-16, no metadata: convert it to UTF-8.*Parquet, CSV.* are read"),
        (b"PK\x03\x04\0\0", "is a zip archive .*unpack it.*Parquet, CSV, TSV"),
        (b"ARROW1\0\0", "is an Arrow IPC .*write its table as parquet"),
        (b"\x80\x04\x95\0", "is a Python pickle"),
        (b"\0\1\2", "is binary, of a kind that is not known"),
        (b"\xff\xd8\xff\xe0\0", "is a JPEG picture, no metadata: `curate adopt` takes pictures"),
        (b"x" * 257 + b"ustar\0", "is a tar, no metadata: `curate adopt` takes webdataset tars"),
        (gzip.compress(b"x" * 257 + b"ustar\0", mtime=0), "is a compressed tar"),
        (gzip.compress(b"PAR1\0", mtime=0), "is parquet inside of a compressed file, no metadata: unpack it"),
        (b"\n<!DOCTYPE html>\n<html>No such object</html>", "is a page of HTML or XML .*download it again"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a page of HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS .*git lfs pull"),
        (b"Not Found", "fits no known metadata schema .columns: Not Found"),
        (b"word " * 10_000, "columns: (word ){12}….;"),
        (gzip.compress(b"url,text\n" + b"http://a/1,x\n" * 99_999, mtime=0)[:-50], "cannot be read to its end"),
        (b'[{"url": 1}', "is not readable JSON"),
        (b'{"url": ["a"], "text": ["b", "c"]}', "neither a list of objects nor an object with equally long lists"),
        (b"a,b\n1,2\n", "fits no known metadata schema .columns: a, b.*say which column is which"),
        (b"url,alternative\nhttp://a/1,x\n", "has no column for caption .*say which column it is"),
    ],
)
def test_what_is_not_read_is_one_sentence(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read(tmp_path / "m.csv", data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("format_name", ["auto", "laion2b"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"error": "Access is restricted"}', "m.parquet is no parquet but JSON Lines: download it again .*error"),
        (b'[{"error": 1}]', "m.parquet is no parquet but JSON: "),
        (b"Not Found", "m.parquet is no parquet but lines of text: .*columns: Not Found|it has Not Found"),
        (b"<html><body>Sign in</body></html>", "m.parquet is a page of HTML or XML"),
    ],
)  # fmt: skip
def test_what_a_server_sent_in_place_of_parquet_is_called_by_its_name(
    tmp_path: Path, data: bytes, said: str, format_name: str
) -> None:
    with pytest.raises(UserError, match=said):
        read(tmp_path / "m.parquet", data, format=format_name)


def test_a_damaged_page_of_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    table = pa.table({"url": [f"http://h.example/{i}" for i in range(2_000)], "caption": ["a"] * 2_000})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    flip_in_pages(path)
    with pytest.raises(UserError, match=r"one.parquet is not a readable parquet file \(.*CRC.*\): download it again"):
        list(read_columns(str(path), ["url", "caption"], [0]))


def test_a_caption_that_begins_with_a_mark_is_no_page(tmp_path: Path) -> None:
    rows = read(tmp_path / "m", b"<PERSON> at a premiere\thttp://a/1\n", format="cc3m")
    assert outcomes(rows) == [("http://a/1", "<PERSON> at a premiere", None)]


def test_a_text_is_known_by_all_of_its_content(tmp_path: Path) -> None:
    recipe = Recipe(sources=(SourceConfig(name="m", paths=(str(tmp_path / "m.csv"),)),))
    rows = [f"http://h.example/{i:05d},caption {i:05d}\n" for i in range(5_000)]
    fingerprints = set()
    for first in ("http://h.example/AAAAA,caption AAAAA\n", rows[0]):
        (tmp_path / "m.csv").write_text("url,text\n" + "".join([first, *rows[1:]]))
        fingerprints.add(find_inputs(recipe)[0].fingerprint)
    assert len(fingerprints) == 2


CAPTIONS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)


@settings(max_examples=40)
@given(st.lists(st.none() | CAPTIONS, min_size=1, max_size=4))
def test_uids_are_those_of_url_and_caption_whatever_the_file(
    tmp_path_factory: pytest.TempPathFactory, captions: list[str | None]
) -> None:
    frame = pd.DataFrame({"url": [f"http://h.example/{i},ü.jpg" for i in range(len(captions))], "caption": captions})
    frame["caption"] = frame["caption"].astype(object)
    folder = tmp_path_factory.mktemp("uids")
    frame.to_csv(folder / "m.csv", index=False)
    frame.to_csv(folder / "m.tsv.gz", index=False, sep="\t")
    frame.to_json(folder / "m.jsonl", orient="records", lines=True)
    pq.write_table(
        pa.table(dict(frame), pa.schema([("url", pa.string()), ("caption", pa.string())])), folder / "m.parquet"
    )
    expected = [uid(url, caption) for url, caption in zip(frame["url"], captions, strict=True)]
    for name in ("m.csv", "m.tsv.gz", "m.jsonl", "m.parquet"):
        assert [row["uid"] for row in read(folder / name)] == expected, name


@given(st.lists(st.text('ab",;\t\n|é', max_size=12), min_size=2, max_size=2), st.sampled_from(",\t;"))
def test_what_pandas_writes_is_read_again(fields: list[str], delimiter: str) -> None:
    text = pd.DataFrame([fields], columns=["x", "y"]).to_csv(index=False, sep=delimiter)
    rows = list(split_rows(iter(text.removesuffix("\n").split("\n")), delimiter))
    assert rows[1:] == [fields]


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and b'"' not in line), max_size=20))
def test_no_line_swallows_another(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    data = b"url,text\nhttp://a/1,x\n" + b"\n".join(lines)
    path = tmp_path_factory.mktemp("m") / "m.csv"
    if b"\0" in data:
        with pytest.raises(UserError):
            read(path, data)
        return
    assert len(read(path, data)) == 1 + sum(bool(line.strip(b" \r")) for line in lines)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("format_name", ["auto", None])
def test_three_rows_of_a_published_set(tmp_path: Path, name: str, format_name: str | None) -> None:
    made = SETS[name]
    rows = read(tmp_path / "m", made.data, format=format_name or name)
    assert outcomes(rows) == [(url, caption, None) for url, caption in zip(URLS, made.captions, strict=True)]
    assert {key: rows[0][key] for key in made.first} == made.first


def test_the_alternative_text_of_laion_coco_can_be_kept_beside_the_synthetic_caption(tmp_path: Path) -> None:
    rows = read(tmp_path / "m", SETS["laion_coco"].data, columns={"caption": ("top_caption", "TEXT")})
    assert [row["caption"] for row in rows] == list(SETS["laion_coco"].captions)
    assert [row["caption_2"] for row in rows] == list(TEXTS)
