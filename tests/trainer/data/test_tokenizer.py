"""The tokenizer against open_clip's, on captions in many scripts and on hostile text."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trainer.torchvision_stub import oracle
from trainer.data import tokenizer

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
SCRIPTS = {
    "latin": (0x00C0, 0x017F),
    "greek": (0x0391, 0x03C9),
    "cyrillic": (0x0410, 0x044F),
    "hebrew": (0x05D0, 0x05EA),
    "arabic": (0x0621, 0x064A),
    "devanagari": (0x0905, 0x094D),
    "thai": (0x0E01, 0x0E4E),
    "hiragana": (0x3041, 0x3096),
    "han": (0x4E00, 0x9FA5),
    "hangul": (0xAC00, 0xD7A3),
    "emoji": (0x1F300, 0x1F64F),
    "fullwidth": (0xFF01, 0xFF5E),
}
WORDS = ("a", "photo", "of", "the", "dog", "Beach", "2019", "sale!", "running-shoes,", "Men's", "(red)", "#tag", "50%")
ODDITIES = (
    "it's", "WE'RE", "&amp;amp;", "&lt;b&gt;", "&EACUTE;", "Ã©tÃ©", "â€œquotedâ€\x9d", "naïve", "e\u0301", "ﬁne",
    "\u200b", "\ufeff", "\x1b[31mred", "½", "²", "İstanbul", "ſtart", "<start_of_text>", "<END_OF_TEXT>", "</w>", "---",
    "\u00a0", "\u2028", "\r\n", "1234567", "snake_case", "https://x.org/a?b=1&c=2", "!", "\ud7ff",
)  # fmt: skip


def captions(count: int, seed: int) -> list[str]:
    """Captions of words in mixed scripts with oddities of the web among them."""
    rng = random.Random(seed)
    return [" ".join(_word(rng) for _ in range(rng.randint(0, 14))) for _ in range(count)]


def _word(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(WORDS)
    if kind < 0.55:
        return rng.choice(ODDITIES)
    first, last = SCRIPTS[rng.choice(list(SCRIPTS))]
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 8)))


def test_ten_thousand_captions_in_many_scripts_equal_open_clip() -> None:
    texts = captions(10_000, seed=0)
    assert torch.equal(tokenizer.tokenize(texts), oracle("open_clip").tokenize(texts))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_equals_open_clip(text: str) -> None:
    assert torch.equal(tokenizer.tokenize(text), oracle("open_clip").tokenize(text))


@pytest.mark.parametrize("name", ["laion_url_text_5k.parquet", "flickr8k/captions_ar.tsv"])
def test_real_captions_equal_open_clip(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not on this machine")
    if name.endswith(".parquet"):
        import pyarrow.parquet

        texts = [text for text in pyarrow.parquet.read_table(SHARED / name)["TEXT"].to_pylist() if text]
    else:
        texts = [line.split("\t")[-1] for line in (SHARED / name).read_text().splitlines()[:5000]]
    assert len(texts) > 1000
    assert torch.equal(tokenizer.tokenize(texts), oracle("open_clip").tokenize(texts))


def test_known_tokens() -> None:
    """The ids that the notebook "Interacting with CLIP" of openai/CLIP prints."""
    row = tokenizer.tokenize("Hello World!")[0].tolist()
    assert row[:6] == [49406, 3306, 1002, 256, 49407, 0]


def test_shape_and_ends() -> None:
    tokens = tokenizer.tokenize(["", "dog", "word " * 200])
    assert tokens.shape == (3, 77) and tokens.dtype == torch.int64
    assert (tokens[:, 0] == tokenizer.START_OF_TEXT).all()
    assert tokens.argmax(dim=-1).tolist() == [1, 2, 76]
    assert (tokens < tokenizer.VOCAB_SIZE).all()
    assert tokenizer.tokenize([]).shape == (0, 77)


@given(st.lists(st.from_regex(r"[a-z]{1,12}", fullmatch=True), max_size=20))
def test_decode_gives_plain_words_back(words: list[str]) -> None:
    text = " ".join(words)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decode_leaves_out_padding_and_ends() -> None:
    assert tokenizer.decode(tokenizer.tokenize("日本 & ünïcode")[0].tolist()) == "日本 & ünïcode"


def test_trim_keeps_every_end_and_a_multiple() -> None:
    tokens = tokenizer.tokenize(["dog", "a dog on the beach with a ball"])
    trimmed = tokenizer.trim(tokens, multiple=4)
    assert trimmed.shape == (2, 12)
    assert torch.equal(trimmed, tokens[:, :12]) and not tokens[:, 12:].any()
    full = tokenizer.tokenize("word " * 200)
    assert torch.equal(tokenizer.trim(full), full)
    assert tokenizer.trim(tokenizer.tokenize([])).shape[0] == 0


def test_memory_of_words_is_bounded() -> None:
    assert tokenizer._word_tokens.cache_info().maxsize is not None
