"""CLIP's byte-pair tokenizer (arXiv 2103.00020, section 2.4): captions to token ids, equal to open_clip's.

The merges lie beside this file (see NOTICE). Unlike open_clip's, the memory of words already seen is bounded, so a
loader may run through billions of captions, and captions of plain ASCII skip the repair of broken encodings.
"""

import gzip
import html
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path

import ftfy
import regex
import torch
from torch import Tensor

CONTEXT_LENGTH = 77
VOCAB_SIZE = 49408
START_OF_TEXT = 49406
END_OF_TEXT = 49407

_MERGES_PATH = Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
_SPECIAL = {"<start_of_text>": START_OF_TEXT, "<end_of_text>": END_OF_TEXT}
_WORD = regex.compile(
    r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)
_END_OF_WORD = "</w>"


def tokenize(texts: str | Iterable[str], context_length: int = CONTEXT_LENGTH) -> Tensor:
    """Encode captions: start, words, end, zeros; a caption that is too long loses its tail but keeps the end.

    Returns:
        int64 `[n, context_length]`.
    """
    rows = [encode(text)[: context_length - 2] for text in ([texts] if isinstance(texts, str) else texts)]
    tokens = torch.zeros(len(rows), context_length, dtype=torch.int64)
    for index, row in enumerate(rows):
        tokens[index, : len(row) + 2] = torch.tensor([START_OF_TEXT, *row, END_OF_TEXT])
    return tokens


def trim(tokens: Tensor, multiple: int = 8) -> Tensor:
    """Cut the columns after the longest caption, keeping a multiple, as a view `[n, at most the length before]`.

    The text tower's result is the same; its time is not. Meant for tokens on the CPU, where looking costs nothing.
    """
    if not len(tokens):
        return tokens
    longest = int(tokens.argmax(dim=-1).max()) + 1
    return tokens[:, : -(-longest // multiple) * multiple]


def encode(text: str) -> list[int]:
    """Token ids of one caption, without start and end."""
    return [token for word in _WORD.findall(clean(text)) for token in _word_tokens(word)]


def decode(tokens: Iterable[int]) -> str:
    """The text of token ids, words parted by one space; padding, start and end are left out.

    Token 0 is both padding and "!" inside a word, so such a "!" is lost. Bytes that are no UTF-8 show as U+FFFD.
    """
    letters = {letter: byte for byte, letter in _byte_letters().items()}
    raw = bytearray()
    for token in tokens:
        if token in (0, START_OF_TEXT, END_OF_TEXT):
            continue
        symbol = _symbols()[token]
        raw.extend(letters[letter] for letter in symbol.removesuffix(_END_OF_WORD))
        if symbol.endswith(_END_OF_WORD):
            raw.extend(b" ")
    return raw.decode("utf-8", errors="replace").rstrip(" ")


def clean(text: str) -> str:
    """Repair encodings, resolve HTML entities twice, join white space, lower the case."""
    # Printable ASCII without an entity is what ftfy and html.unescape would hand back unchanged.
    if not (text.isascii() and text.isprintable() and "&" not in text):
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@lru_cache(maxsize=1 << 16)
def _word_tokens(word: str) -> tuple[int, ...]:
    """Merge the bytes of one word, always the pair that was learned first, until no learned pair is left."""
    if word in _SPECIAL:
        return (_SPECIAL[word],)
    letters = _byte_letters()
    parts = [letters[byte] for byte in word.encode("utf-8")]
    parts[-1] += _END_OF_WORD
    ranks, ids = _ranks(), _ids()
    while len(parts) > 1:
        pair = min(zip(parts, parts[1:], strict=False), key=lambda pair: ranks.get(pair, len(ranks)))
        if pair not in ranks:
            break
        parts = _merge(parts, pair)
    return tuple(ids[part] for part in parts)


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    index = 0
    while index < len(parts):
        if index + 1 < len(parts) and (parts[index], parts[index + 1]) == pair:
            merged.append(pair[0] + pair[1])
            index += 2
        else:
            merged.append(parts[index])
            index += 1
    return merged


@cache
def _byte_letters() -> dict[int, str]:
    """A printable letter for every byte, in the order of the vocabulary: first those that print, then the rest."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


@cache
def _ranks() -> dict[tuple[str, str], int]:
    """The learned pairs, earliest first: what the vocabulary has room for after bytes, word ends and specials."""
    num_merges = VOCAB_SIZE - 2 * 256 - len(_SPECIAL)
    lines = gzip.decompress(_MERGES_PATH.read_bytes()).decode("utf-8").split("\n")[1 : num_merges + 1]
    return {(left, right): rank for rank, (left, right) in enumerate(line.split() for line in lines)}


@cache
def _symbols() -> tuple[str, ...]:
    letters = list(_byte_letters().values())
    merged = [left + right for left, right in _ranks()]
    return (*letters, *(letter + _END_OF_WORD for letter in letters), *merged, *_SPECIAL)


@cache
def _ids() -> dict[str, int]:
    return {symbol: token for token, symbol in enumerate(_symbols())}
