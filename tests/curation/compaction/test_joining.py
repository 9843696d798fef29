"""Parquet files joined by their bytes are one parquet file to Arrow and DuckDB, and still what they were."""

import hashlib
import io
import itertools
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.compaction.joining import Joining, parse_parts, read_footer
from curation.storage import parquet_bytes

SCHEMA = pa.schema([("uid", pa.string()), ("text", pa.string()), ("x", pa.float32()), ("yes", pa.bool_())])
SIZES = (1_000, 0, 70_000, 3)
"""Rows of the files: one has none, one has two row groups."""


def make(number: int, num_rows: int) -> pa.Table:
    uids = sorted(hashlib.md5(f"{number} {k}".encode()).hexdigest() for k in range(num_rows))
    columns = {
        "uid": uids,
        "text": [None if k % 7 == 0 else f"{number} {k}" for k in range(num_rows)],
        "x": [k / 2 for k in range(num_rows)],
        "yes": [k % 3 == 0 for k in range(num_rows)],
    }
    return pa.table(columns, schema=SCHEMA)


def join(files: list[bytes]) -> bytes:
    joining = Joining()
    for data in files:
        joining.add(data)
    return b"".join(files) + joining.footer()


@pytest.fixture(scope="module")
def tables() -> list[pa.Table]:
    return [make(number, num_rows) for number, num_rows in enumerate(SIZES)]


def test_arrow_reads_the_rows_of_all_files_in_their_order(tables: list[pa.Table]) -> None:
    joined = pq.ParquetFile(io.BytesIO(join([*map(parquet_bytes, tables)])), page_checksum_verification=True)
    assert joined.read().equals(pa.concat_tables(tables))
    assert joined.metadata.num_rows == sum(SIZES) and joined.schema_arrow.equals(SCHEMA)


def test_duckdb_reads_the_same_rows(tables: list[pa.Table], tmp_path: Path) -> None:
    path = tmp_path / "joined.parquet"
    path.write_bytes(join([*map(parquet_bytes, tables)]))
    with duckdb.connect() as connection:
        found = connection.sql(f"select * from read_parquet('{path}')").to_arrow_table()
        uid = tables[2]["uid"][69_999].as_py()
        where = f"from read_parquet('{path}', file_row_number = true) where uid = '{uid}'"
        place = connection.sql(f"select file_row_number {where}").fetchall()
    assert found.cast(SCHEMA).equals(pa.concat_tables(tables))
    assert place == [(1_000 + 69_999,)]


def test_each_file_lies_in_it_byte_for_byte_where_its_footer_says(tables: list[pa.Table]) -> None:
    files = [*map(parquet_bytes, tables)]
    joined = join(files)
    parts = parse_parts(pq.read_metadata(io.BytesIO(joined)).metadata)
    assert parts == [(len(data), num_rows) for data, num_rows in zip(files, SIZES, strict=True)]
    stops = [*itertools.accumulate(size for size, _ in parts)]
    assert [joined[start:stop] for start, stop in zip([0, *stops], stops, strict=False)] == files


def test_files_with_other_columns_are_refused(tables: list[pa.Table]) -> None:
    with pytest.raises(ValueError, match="columns are not those"):
        join([parquet_bytes(tables[0]), parquet_bytes(tables[0].drop(["x"]))])


def test_what_is_no_parquet_file_and_no_joined_one_is_refused(tables: list[pa.Table]) -> None:
    data = parquet_bytes(tables[3])
    for torn in (b"", data[:-1], data[:20], b"PAR1" + bytes(8)):
        with pytest.raises(ValueError, match="parquet"):
            read_footer(torn)
    with pytest.raises(ValueError, match="footer is cut"):
        read_footer(data[-8:-4] + b"\x19" * 6 + (6).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match="not joined"):
        parse_parts(pq.read_metadata(io.BytesIO(data)).metadata)
