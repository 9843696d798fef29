"""How much of the caption is web page rather than description: addresses and file names, and boilerplate.

`caption_url_share` is the share of the characters that are not white space in URLs, host names, mail addresses, file
names and markup. `caption_boilerplate_share` is the share of the words in phrases of web pages: those by which C4 drops
lines (Raffel et al. 2020, section 2.2: policies, cookies, JavaScript, lorem ipsum), and those of shops and picture
agencies. `caption_boilerplate` of the filter of that name says whether a caption is nothing else.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from curation.errors import UserError
from filters._words import split_words
from filters.base import Filter

PHRASES = (
    *("lorem ipsum", "terms of use", "terms of service", "privacy policy", "cookie policy", "uses cookies"),
    *("use of cookies", "use cookies", "javascript"),
    *("click here", "click to enlarge", "click for details", "read more", "learn more", "view larger", "view more"),
    *("add to cart", "buy now", "buy online", "shop now", "free shipping", "free delivery", "best price", "for sale"),
    *("in stock", "out of stock", "sold out", "free download", "download free", "sign up", "log in", "subscribe"),
    *("stock photo", "stock photos", "stock image", "stock images", "stock photography", "stock illustration"),
    *("stock vector", "royalty free", "all rights reserved", "terms and conditions", "powered by", "follow us"),
)
_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]*://|www\.)", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_HOST = re.compile(
    r"[\w-]+(?:\.[\w-]+)*\.(?:com|net|org|info|biz|edu|gov|io|shop|store|online|blog|xyz|co\.uk)(?:[/:?#].*)?", re.I
)
_PATH = re.compile(r"[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}/.*", re.IGNORECASE)
_FILE = re.compile(r"[\w\-.()%]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif|pdf|html?|php|aspx?)", re.IGNORECASE)
_MARKUP = re.compile(r"</?[a-z]\w*[^<>]*>|&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,8});", re.IGNORECASE)
_AROUND = ".,;:!?()[]{}<>\"'`“”‘’«»…|"
Starts = Mapping[str, Sequence[tuple[str, ...]]]
"""First word of a phrase → the phrases that begin by it."""


@functools.lru_cache(maxsize=4)
def _read_phrases(path: str | None) -> Starts:
    """The phrases of the file at `path`, one a line, or PHRASES. Raises UserError for a file without phrases."""
    lines: Iterable[str] = PHRASES
    if path is not None:
        try:
            with open(path, encoding="utf-8-sig") as file:
                lines = list(file)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The list of phrases {path} cannot be read as UTF-8 text: {error}.") from error
    starts: dict[str, list[tuple[str, ...]]] = {}
    for words in filter(None, map(split_words, lines)):
        starts.setdefault(words[0], []).append(tuple(words))
    if not starts:
        raise UserError(f"The list of phrases {path} is empty: give one phrase a line.")
    return starts


def url_share(caption: str) -> float | None:
    """Share of the visible characters of `caption` in addresses, file names and markup; None where there is none."""
    num_markup = sum(len("".join(tag.split())) for tag in _MARKUP.findall(caption))
    tokens = (_MARKUP.sub(" ", caption) if num_markup else caption).split()
    num_visible = num_markup + sum(map(len, tokens))
    return (num_markup + sum(map(_count_address, tokens))) / num_visible if num_visible else None


def _count_address(token: str) -> int:
    """Characters of `token` that are an address or the name of a file: all but the signs around it, or none."""
    if "." not in token and "://" not in token:
        return 0
    core = token.strip(_AROUND)
    found = _SCHEME.match(core) or any(known.fullmatch(core) for known in (_MAIL, _HOST, _PATH, _FILE))
    return len(core) if found else 0


def phrase_share(caption: str, starts: Starts) -> float | None:
    """Share of the words of `caption` that stand in one of the phrases; None where it has no words."""
    words = split_words(_MARKUP.sub(" ", caption))
    covered: set[int] = set()
    for place, word in enumerate(words):
        for phrase in starts.get(word, ()):
            if tuple(words[place : place + len(phrase)]) == phrase:
                covered.update(range(place, place + len(phrase)))
    return len(covered) / len(words) if words else None


@dataclass(frozen=True, kw_only=True)
class CaptionWeb(Filter):
    """Both in [0, 1]; null for a null caption and for one without visible characters, or without words."""

    phrases: str | None = None
    """UTF-8 file with one phrase a line, in place of the list here."""

    reads = ("caption",)
    writes = pa.schema([("caption_url_share", pa.float32()), ("caption_boilerplate_share", pa.float32())])
    files = ("phrases",)

    def check_ready(self) -> None:
        _read_phrases(self.phrases)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        starts = _read_phrases(self.phrases)
        captions = [text or "" for text in batch["caption"].to_pylist()]
        return self.result([url_share(text) for text in captions], [phrase_share(text, starts) for text in captions])


FILTER = CaptionWeb
