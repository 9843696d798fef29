"""Nouns of a caption, by a tagger that need not be installed."""

from __future__ import annotations

import sys

import pyarrow as pa
import pytest

import filters
from curation.errors import UserError
from filters import caption_nouns


class Tagger:
    """Takes words in capitals for names, "dog" for a noun, and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def tag_sent(self, tokens: list[str], taglevel: int) -> list[str]:
        self.asked.append(tokens)
        return ["NN1" if token == "dog" else "NP0" if token.isupper() or token == "$" else "AJ0" for token in tokens]


def score(captions: list[str | None], **options: object) -> list[int | None]:
    batch = pa.RecordBatch.from_pydict({"caption": pa.array(captions, pa.string())})
    found: list[int | None] = filters.build("caption_nouns", options).apply(batch)["caption_nouns"].to_pylist()
    return found


def test_nouns_and_names_with_letters_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    tagger = Tagger()
    monkeypatch.setattr(caption_nouns, "_tagger", lambda language: tagger)
    assert score(["a dog in NASA's", "brown", "", None, "$ 7"]) == [1, 0, 0, None, 0]


def test_only_the_beginning_of_captions_and_words_is_tagged(monkeypatch: pytest.MonkeyPatch) -> None:
    tagger = Tagger()
    monkeypatch.setattr(caption_nouns, "_tagger", lambda language: tagger)
    score(["x" * 1_000 + " dog dog"], max_words=2)
    assert tagger.asked == [["x" * caption_nouns.MAX_LETTERS, "dog"]]


def test_without_the_tagger_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "HanTa.HanoverTagger", None)
    caption_nouns._tagger.cache_clear()
    with pytest.raises(UserError, match="pip install HanTa"):
        filters.build("caption_nouns", {}).check_ready()


@pytest.mark.parametrize(
    ("language", "with_noun", "without"),
    [
        ("en", "A brown dog runs over the field", "very nice and beautiful"),
        ("de", "Ein brauner Hund läuft über die Wiese", "schön und gut"),
        ("nl", "Een bruine hond loopt over het veld", "mooi en goed"),
    ],
)
def test_the_real_tagger_tells_nouns_from_adjectives(language: str, with_noun: str, without: str) -> None:
    pytest.importorskip("HanTa", reason="the tagger is an optional extra")
    caption_nouns._tagger.cache_clear()
    assert score([with_noun, without], language=language) == [2, 0]
