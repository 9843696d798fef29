"""Thrift's compact protocol, as far as the footer of a parquet file needs it: read into values and written again.

A struct is a dict, field number → (type, value), in the order of its fields; a list is a pair of the type of its items
and the items. Reading and writing gives the same bytes.
"""

from __future__ import annotations

from typing import Any

Struct = dict[int, tuple[int, Any]]
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_LONG_LIST = 15
_WHOLE = frozenset({I16, I32, I64})


class Reader:
    """Reads values from `data`. Raises ValueError for what is no compact protocol, IndexError where it ends."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self) -> Struct:
        """The struct that begins here."""
        fields: Struct = {}
        number = 0
        while header := self._byte():
            kind, step = header & 15, header >> 4
            number = number + step if step else self._signed()
            fields[number] = (kind, self._signed() if kind in _WHOLE else self._value(kind))
        return fields

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _unsigned(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        if byte < 128:  # most are: a footer has hundreds of them
            return byte
        value, shift = byte & 127, 7
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)

    def _bytes(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise IndexError("the data ends inside of a value")
        return self._data[self._at - size : self._at]

    def _value(self, kind: int) -> Any:
        """A value of any type but _WHOLE, of which most are: those are read where they are met."""
        if kind == BINARY:
            return self._bytes(self._unsigned())
        if kind == STRUCT:
            return self.struct()
        if kind in (LIST, SET):
            return self._list()
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in (BYTE, DOUBLE):
            return self._bytes(1 if kind == BYTE else 8)
        raise ValueError(f"a parquet footer has no values of type {kind}")

    def _list(self) -> tuple[int, list[Any]]:
        header = self._byte()
        kind, size = header & 15, header >> 4
        size = self._unsigned() if size == _LONG_LIST else size
        if kind in (TRUE, FALSE):
            return kind, [self._byte() == TRUE for _ in range(size)]
        if kind in _WHOLE:
            return kind, [self._signed() for _ in range(size)]
        return kind, [self._value(kind) for _ in range(size)]


def write_struct(fields: Struct) -> bytes:
    """The bytes of a struct, the opposite of `Reader.struct`."""
    sink = bytearray()
    _write_struct(sink, fields)
    return bytes(sink)


def _write_struct(sink: bytearray, fields: Struct) -> None:
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        step = number - last
        if step < _LONG_LIST + 1:
            sink.append(step << 4 | kind)
        else:
            sink.append(kind)
            _write_signed(sink, number)
        _write_value(sink, kind, value)
        last = number
    sink.append(0)


def _write_value(sink: bytearray, kind: int, value: Any) -> None:
    if kind in _WHOLE:
        _write_signed(sink, value)
    elif kind == BINARY:
        _write_unsigned(sink, len(value))
        sink += value
    elif kind == STRUCT:
        _write_struct(sink, value)
    elif kind in (LIST, SET):
        _write_list(sink, *value)
    elif kind in (BYTE, DOUBLE):
        sink += value  # a truth is its type alone


def _write_list(sink: bytearray, kind: int, items: list[Any]) -> None:
    if len(items) < _LONG_LIST:
        sink.append(len(items) << 4 | kind)
    else:
        sink.append(_LONG_LIST << 4 | kind)
        _write_unsigned(sink, len(items))
    for item in items:
        if kind in (TRUE, FALSE):
            sink.append(TRUE if item else FALSE)
        else:
            _write_value(sink, kind, item)


def _write_signed(sink: bytearray, value: int) -> None:
    _write_unsigned(sink, value << 1 if value >= 0 else (-value << 1) - 1)


def _write_unsigned(sink: bytearray, value: int) -> None:
    while value > 127:
        sink.append(value & 127 | 128)
        value >>= 7
    sink.append(value)
