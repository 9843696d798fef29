"""Thrift's compact protocol: what is read is written again, byte for byte."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.compaction.thrift import (
    BINARY,
    BYTE,
    DOUBLE,
    FALSE,
    I16,
    I64,
    LIST,
    STRUCT,
    TRUE,
    Reader,
    Struct,
    write_struct,
)


def test_a_footer_of_arrow_is_written_again_as_it_was() -> None:
    sink = io.BytesIO()
    table = pa.table({"a": [1, None, 3], "b": ["x", "y", None], "c": [True, False, None], "d": [[1.5], [], None]})
    pq.write_table(table, sink, row_group_size=1, write_page_index=True, compression="zstd")
    data = sink.getvalue()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    assert write_struct(Reader(footer).struct()) == footer


def test_every_kind_of_value_is_read_as_it_was_written() -> None:
    fields: Struct = {
        1: (I64, -(2**40)),
        2: (TRUE, True),
        3: (FALSE, False),
        4: (BYTE, b"\x07"),
        5: (DOUBLE, b"\x00" * 8),
        40: (I16, 300),
        41: (BINARY, b"x" * 200),
        42: (LIST, (I64, [*range(-20, 20)])),
        43: (LIST, (TRUE, [True, False])),
        44: (STRUCT, {1: (LIST, (STRUCT, [{}, {9: (I64, 0)}]))}),
    }
    assert Reader(write_struct(fields)).struct() == fields


@pytest.mark.parametrize("data", [b"", b"\x18\x05ab", b"\x19\x1c"])
def test_data_that_ends_inside_of_a_value_is_refused(data: bytes) -> None:
    with pytest.raises(IndexError):
        Reader(data).struct()


def test_a_type_that_no_footer_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no values of type 11"):
        Reader(b"\x1b\x00\x00").struct()
