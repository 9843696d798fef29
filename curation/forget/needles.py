"""Texts and bytes that must not be found any more, and the search for all of them in one pass over the bytes.

A text of a table may stand elsewhere as JSON or HTML has it, so each form of it is looked for. A short text stands in
any bytes by chance: it counts only where it is a whole value.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import numpy as np

MIN_BYTES = 16
"""Shorter texts are compared as whole values alone."""
WINDOW_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Needles:
    """`by_bytes` maps what is looked for to the name of what it is a form of; `values` are the short texts."""

    by_bytes: Mapping[bytes, str]
    values: frozenset[str] = frozenset()

    @cached_property
    def longest(self) -> int:
        """Bytes that two parts of a file have to share, so that nothing is cut between them."""
        return max(map(len, self.by_bytes), default=0)

    @cached_property
    def _by_end(self) -> dict[bytes, list[bytes]]:
        found: dict[bytes, list[bytes]] = {}
        for needle in self.by_bytes:
            found.setdefault(needle[-MIN_BYTES:], []).append(needle)
        return found

    @cached_property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Which values the last two bytes have, as bool `[65536]`; the last eight bytes, uint64, sorted."""
        ends = [end[-8:] for end in self._by_end]
        known = np.zeros(1 << WINDOW_BITS, bool)
        known[[int.from_bytes(end[-2:], "little") for end in ends]] = True
        return known, np.unique(np.array([int.from_bytes(end, "little") for end in ends], np.uint64))

    def find(self, data: bytes) -> set[str]:
        """The names of what stands in `data`."""
        if not self.by_bytes or len(data) < MIN_BYTES:
            return set()
        known, ends = self._ends
        values = np.frombuffer(data, np.uint8).astype(np.uint16)
        places = np.flatnonzero(known[values[:-1] | values[1:] << 8])
        places = places[places >= MIN_BYTES - 2] + 2  # where a needle would end
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), 8)[places - 8]
        eights = np.ascontiguousarray(windows).view("<u8").ravel()
        found = set[str]()
        for end in places[np.isin(eights, ends)].tolist():
            for needle in self._by_end.get(data[end - MIN_BYTES : end], ()):
                if data[:end].endswith(needle) if len(needle) < end else data[:end] == needle:
                    found.add(self.by_bytes[needle])
        return found

    def without(self, names: Iterable[str]) -> Needles:
        """These but for what `names` name."""
        gone = set(names)
        left = {needle: name for needle, name in self.by_bytes.items() if name not in gone}
        return Needles(by_bytes=left, values=self.values - gone)


def make_needles(texts: Iterable[str]) -> Needles:
    """The needles of `texts` in all their forms, named by the texts."""
    by_bytes, values = dict[bytes, str](), set[str]()
    for text in texts:
        forms = {form for form in _list_forms(text) if len(form) >= MIN_BYTES}
        if len(text.encode(errors="surrogatepass")) < MIN_BYTES:
            values.add(text)
            continue
        by_bytes |= dict.fromkeys(forms, text)
    return Needles(by_bytes=by_bytes, values=frozenset(values))


def make_byte_needles(pieces: Iterable[str]) -> Needles:
    """The needles of some bytes, given and named by their hexadecimal digits."""
    return Needles(by_bytes={bytes.fromhex(piece): piece for piece in pieces})


def _list_forms(text: str) -> set[bytes]:
    """`text` as it is, as JSON escapes it, as HTML does, and as a part of a URL."""
    as_json = {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    forms = {text, *as_json, html.escape(text), html.escape(text, quote=False), quote(text, safe="/:")}
    return {form.encode(errors="surrogatepass") for form in forms}
