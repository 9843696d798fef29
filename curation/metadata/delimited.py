"""CSV and TSV into rows of fields: a bad row is one bad row, whatever stands in it.

Quotes count where a field begins with one, as in RFC 4180; a row goes on over lines while a quoted field is open. In
TSV, where captions often begin with a quote that nothing closes, such a field is taken as it stands.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from functools import cache

MAX_LINES = 1_000
"""Lines over which one row may go; of a quote that is not closed by then, only the first line is a bad row."""
MAX_CHARACTERS = 16_777_216
Row = list[str] | None


class _Lines:
    """Lines that can be looked at before they are taken."""

    def __init__(self, lines: Iterator[str | None]) -> None:
        self.lines, self.ahead = lines, deque[str | None]()

    def has(self, number: int) -> bool:
        """Whether there are `number` more lines."""
        while len(self.ahead) < number:
            try:
                self.ahead.append(next(self.lines))
            except StopIteration:
                return False
        return True


def split_rows(lines: Iterator[str | None], delimiter: str) -> Iterator[Row]:
    """The rows that `lines` hold, blank lines left out; None for a row that is none."""
    buffer = _Lines(lines)
    while buffer.has(1):
        line = buffer.ahead.popleft()
        if line is None:
            yield None
        elif '"' not in line:
            if line.strip(" \r"):
                yield line.removesuffix("\r").split(delimiter)
        else:
            yield _split_quoted(line, buffer, delimiter)


def _split_quoted(line: str, buffer: _Lines, delimiter: str) -> Row:
    """The fields of the row that begins with `line`, whose further lines are taken from `buffer`."""
    text, taken = line, 0
    while True:
        fields, is_open = split_fields(text.removesuffix("\r"), delimiter)
        if fields is not None or not is_open or taken == MAX_LINES or not buffer.has(taken + 1):
            break
        further = buffer.ahead[taken]
        if further is None or len(text) > MAX_CHARACTERS:
            break
        # Only a quote can close the field: lines without one need not be looked at again and again.
        parts = [text, further]
        taken += 1
        while '"' not in parts[-1] and taken < MAX_LINES and buffer.has(taken + 1) and buffer.ahead[taken] is not None:
            parts.append(buffer.ahead[taken] or "")
            taken += 1
        text = "\n".join(parts)
    if fields is None:
        return line.removesuffix("\r").split(delimiter) if delimiter == "\t" else None
    for _ in range(taken):
        buffer.ahead.popleft()
    return fields


@cache
def _field(delimiter: str) -> re.Pattern[str]:
    end = re.escape(delimiter)
    return re.compile(rf'(?:"((?:[^"]++|"")*+)"(?={end}|\Z)|(?!")([^{end}]*+))({end}|\Z)')


def split_fields(text: str, delimiter: str) -> tuple[Row, bool]:
    """The fields of `text`, and None with whether its last field is a quoted one that more text could close."""
    pattern, fields, start = _field(delimiter), [], 0
    while True:
        found = pattern.match(text, start)
        if found is None:
            return None, text.count('"', start) % 2 == 1
        quoted, plain, end = found.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"'))
        if not end:
            return fields, False
        start = found.end()
