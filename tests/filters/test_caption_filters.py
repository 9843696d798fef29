"""Filters over captions: length, language, boilerplate, concepts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters import caption_length
from filters._lexicon import make_lexicon, split_at_blanks, split_at_signs
from filters._words import UNSPACED
from filters.caption_boilerplate import is_boilerplate, letters
from filters.caption_length import count_words

MIXED = "ab \t\x1c\x85\xa0\u2003\u3000é猫ね𠀀한"
"""Letters, blanks of many kinds, and characters that are words."""
captions = st.lists(st.one_of(st.none(), st.text(max_size=60)), min_size=1, max_size=10)


def scored(name: str, values: list[str | None], **options: object) -> dict[str, list[Any]]:
    batch = pa.RecordBatch.from_pydict({"caption": pa.array(values, pa.string())})
    return filters.build(name, options).apply(batch).to_pydict()


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("", 0),
        (" \t\n", 0),
        ("A dog, a cat", 4),
        ("it's well-known", 2),
        ("一只猫", 3),
        ("猫とdog", 3),
        ("한국어 문장", 2),
        ("Привет, мир", 2),
        ("𠀀𠀁", 2),
        ("แมวนั่งบนโต๊ะ", 1),
    ],
)
def test_words_by_script(caption: str, words: int) -> None:
    assert count_words(pa.array([caption])).tolist() == [words]


@given(captions)
def test_lengths(values: list[str | None]) -> None:
    found = scored("caption_length", values)
    for text, characters, words in zip(values, found["caption_characters"], found["caption_words"], strict=True):
        assert characters == (None if text is None else len(text))
        assert words == (None if text is None else split_words_one_by_one(text))


@given(st.text("ab c", max_size=30), st.text("ab c", max_size=30))
def test_words_add_up_over_a_blank(left: str, right: str) -> None:
    both, first, second = count_words(pa.array([f"{left} {right}", left, right])).tolist()
    assert both == first + second


def split_words_one_by_one(caption: str) -> int:
    """Words as Python's own functions split them."""
    spaced, num_characters = UNSPACED.subn(" ", caption)
    return len(spaced.split()) + num_characters


@given(
    st.lists(
        st.one_of(st.none(), st.text("ab \t\x1c\x85\xa0\u2003\u3000é猫ね𠀀한", max_size=12), st.text()), max_size=9
    ),
    st.integers(0, 9),
    st.integers(1, 30),
)
def test_words_of_many_captions_are_those_of_each(values: list[str | None], start: int, limit: int) -> None:
    """Of a part of an array too, and where so few characters are looked at together that captions are taken apart."""
    whole = pa.array(values, pa.string())
    expected = [split_words_one_by_one(text or "") for text in values[start:]]
    assert count_words(whole[start:]).tolist() == expected
    with patch.object(caption_length, "MAX_CHARACTERS", limit):
        assert count_words(whole[start:]).tolist() == expected


def test_every_character_is_of_the_kind_that_python_says() -> None:
    every = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000]
    found = count_words(pa.array([f"a{character}b" for character in every]))
    assert found.tolist() == [split_words_one_by_one(f"a{character}b") for character in every]


def test_languages_of_clear_sentences() -> None:
    texts = {
        "en": "A brown dog is running across the green field",
        "de": "Ein brauner Hund läuft über die grüne Wiese",
        "fr": "Un chien brun court dans le champ vert",
        "ru": "Коричневая собака бежит по зелёному полю",
        "zh": "一只棕色的狗在绿色的田野上奔跑",
        "ja": "茶色の犬が緑の野原を走っています",
    }
    found = scored("language", list(texts.values()))
    assert found["language"] == list(texts)
    assert all(0 < p <= 1 for p in found["language_probability"])


def test_no_letters_means_no_language() -> None:
    values = [None, "", "  \n", "12345", "!!! 100 % …", "🐕🐕"]
    found = scored("language", values)
    assert found["language"] == found["language_probability"] == [None] * len(values)


def test_language_survives_newlines_and_shouting_and_reads_only_the_beginning() -> None:
    german = "Ein brauner Hund läuft über die grüne Wiese"
    found = scored(
        "language", [german.replace(" ", "\n"), german.upper(), german + " the dog runs" * 200], max_characters=43
    )
    assert found["language"] == ["de", "de", "de"]


@given(captions)
def test_language_answers_any_text(values: list[str | None]) -> None:
    found = scored("language", values)
    for code, probability in zip(found["language"], found["language_probability"], strict=True):
        assert (code is None) == (probability is None)
        assert probability is None or 0 < probability <= 1


@pytest.mark.parametrize(
    "text",
    ["", "  ", "IMG_1234.jpg", "DSC_0042", "photo 3", "untitled", "No image available", "logo.png", "Product image"],
)
def test_boilerplate(text: str) -> None:
    assert is_boilerplate(text)


@pytest.mark.parametrize(
    "text", ["A photo of a dog", "the image of Venus", "P. Smith", "logo design for a bakery", "犬"]
)
def test_not_boilerplate(text: str) -> None:
    assert not is_boilerplate(text)


@given(captions)
def test_share_of_letters(values: list[str | None]) -> None:
    found = scored("caption_boilerplate", values)
    for text, share, boilerplate in zip(values, found["caption_letters"], found["caption_boilerplate"], strict=True):
        assert (boilerplate is None) == (text is None)
        assert (share is None) == (text is None or not text.strip())
        assert share is None or 0 <= share <= 1
    assert letters("ab 12") == 0.5 and letters("नमस्ते") == 1.0


def test_concepts_are_whole_words_and_the_longest_names_the_row(tmp_path: Path) -> None:
    entries = tmp_path / "entries.txt"
    entries.write_text("dog\nHot Dog\ncat\n\npolar bear\n", encoding="utf-8")
    values = [None, "", "category", "A hot dog!", "dog, cat & dog", "POLAR-BEAR cub", "a polar bear's dog"]
    found = scored("concept_match", values, entries=str(entries))
    assert found["num_concepts"] == [None, 0, 0, 2, 2, 1, 2]
    assert found["concept"] == [None, None, None, "hot dog", "cat", "polar bear", "polar bear"]


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=8).map(" ".join),
    st.frozensets(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(" ".join), max_size=6),
)
def test_matches_equal_padded_substring_search(caption: str, entries: frozenset[str]) -> None:
    by_hand = {entry for entry in entries if f" {entry} " in f" {caption} "}
    for match in ("words", "metaclip"):
        assert make_lexicon(entries, match).match(caption.split(" ")) == by_hand


def space(text: str) -> str:
    """`text` as MetaCLIP's code spaces it before it searches it: signs between blanks, no tabs and line ends."""
    text = f" {text} "
    for sign in ",.;:?!`":
        text = text.replace(sign, f" {sign} ")
    for blank in "\t\n\r":
        text = text.replace(blank, " ")
    return text


@given(
    st.text("aB ,.;`-\t\n", max_size=30),
    st.frozensets(st.text("aB ,.-", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=12),
)
def test_matches_of_metaclip_are_those_of_its_search_for_substrings(caption: str, entries: frozenset[str]) -> None:
    by_hand = {entry for entry in entries if f" {entry} " in space(caption)}
    assert make_lexicon(entries, "metaclip").match(split_at_blanks(caption)) == by_hand


def test_case_and_signs_count_for_metaclip_only(tmp_path: Path) -> None:
    (tmp_path / "entries.txt").write_text("Polar bear\nhot-dog\n!\n", encoding="utf-8")
    values = ["polar, BEAR", "A Polar bear! hot-dog", "hot dog"]
    for match, counts in (("words", [1, 2, 1]), ("metaclip", [0, 3, 0])):
        found = scored("concept_match", values, entries=str(tmp_path / "entries.txt"), match=match)
        assert found["num_concepts"] == counts
    assert split_at_signs("Hot-dog") == ["hot", "dog"]


def test_tables_of_scores_that_were_begun_before_there_was_a_choice_are_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "entries.txt").write_text("dog\n")
    options = {"entries": str(tmp_path / "entries.txt")}
    assert list(filters.build("concept_match", options).config()["options"]) == ["entries"]
    assert "match" in filters.build("concept_match", options | {"match": "metaclip"}).config()["options"]
