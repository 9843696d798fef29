"""Text files of metadata: recognised by content, read row by row, and the published sets in their true schemas."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from curation.metadata.delimited import split_rows
from curation.metadata.inputs import find_inputs
from curation.metadata.rows import divide, read_shares
from curation.recipe.config import Recipe, SourceConfig

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
        (gzip.compress(b"x" * 257 + b"ustar\0"), "is a compressed tar"),
        (gzip.compress(b"PAR1\0"), "is parquet inside of a compressed file, no metadata: unpack it"),
        (b"\n<!DOCTYPE html>\n<html>No such object</html>", "is a page of HTML or XML .*download it again"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a page of HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS .*git lfs pull"),
        (b"Not Found", "fits no known metadata schema .columns: Not Found"),
        (b"word " * 10_000, "columns: (word ){12}….;"),
        (gzip.compress(b"url,text\n" + b"http://a/1,x\n" * 99_999)[:-50], "cannot be read to its end"),
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


PUBLISHED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "cc3m": (b"a very typical bus station\thttp://a/1\nsierra looked \"stunning\t\thttp\n\"a\thttp://a/3\n", {}),
    "cc12m": (b"http://a/1\ta red door\nhttp://a/2\t\"So\nhttp://a/3\tx\n", {}),
    "sbu": (json.dumps({"image_urls": ["http://a/1", "http://a/2", "http://a/3"], "captions": ["a", "b", "c"],
                        "user_names": ["x", "y", "z"]}).encode(), {"caption": "a"}),
    "laion_coco": (b"".join(json.dumps({"URL": f"http://a/{i}", "TEXT": "alt", "top_caption": "a door",
                        "all_captions": ["a door", "b"], "all_similarities": [0.3, 0.2], "WIDTH": 5, "HEIGHT": 6,
                        "similarity": 0.3, "hash": 7, "pwatermark": 0.1, "punsafe": 0.2}).encode() + b"\n"
                        for i in (1, 2, 3)), {"caption": "a door", "claimed_width": 5, "source_id": "7"}),
    "coyo_labeled": (b"".join(json.dumps({"id": 315, "url": f"http://a/{i}", "imagehash": "daf5a50aae4aa54a",
                        "labels": [8087], "label_probs": [0.4], "width": 240, "height": 240}).encode() + b"\n"
                        for i in (1, 2, 3)), {"caption": None, "claimed_phash": "daf5a50aae4aa54a"}),
    "cc2dataset": (b"uid,url,alt,cc_filename,page_url\n" + b"u,http://a/1,a dog,f,http://p\n" * 3,
                   {"caption": "a dog", "source_id": "u"}),
    "laion_high_resolution": (b"URL,TEXT,WIDTH,HEIGHT,LANGUAGE,similarity,hash,pwatermark,punsafe\n"
                        + b"http://a/1,x,2048,1536,de,0.3,12,0.1,0.2\n" * 3, {"claimed_language": "de"}),
    "datacomp1b": (b"uid,url,text,original_width,original_height,clip_b32_similarity_score,"
                   b"clip_l14_similarity_score,face_bboxes,sha256\n" + b"f0,http://a/1,x,5,6,0.3,0.2,[],ab\n" * 3,
                   {"source_id": "f0", "claimed_sha256": "ab"}),
    "relaion": (b"url,caption,punsafe,pwatermark,key,status\n" + b"http://a/1,x,0.1,0.2,k,s\n" * 3, {"source_id": "k"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_three_rows_of_a_published_set(tmp_path: Path, name: str) -> None:
    data, wanted = PUBLISHED[name]
    rows = read(tmp_path / "m", data, format=name)
    assert len(rows) == 3
    assert rows[0]["url"] == "http://a/1" and rows[0]["reason"] is None
    assert {key: rows[0][key] for key in wanted} == wanted
    assert {row["source"] for row in rows} == {"m"}


def test_conceptual_captions_are_recognised_by_where_the_url_is(tmp_path: Path) -> None:
    assert read(tmp_path / "3", PUBLISHED["cc3m"][0])[0]["caption"] == "a very typical bus station"
    assert [row["caption"] for row in read(tmp_path / "12", PUBLISHED["cc12m"][0])] == ["a red door", '"So', "x"]
