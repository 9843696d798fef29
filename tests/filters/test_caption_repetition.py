"""How much of a caption repeats itself."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.caption_repetition import repetition

words = st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), min_size=1, max_size=24)


def score(captions: list[str | None]) -> list[dict[str, float | None]]:
    batch = pa.RecordBatch.from_pydict({"caption": pa.array(captions, pa.string())})
    rows: list[dict[str, float | None]] = filters.build("caption_repetition", {}).apply(batch).to_pylist()
    return rows


def test_a_title_pasted_twice_repeats_itself_and_a_sentence_does_not() -> None:
    title = "Red shoes for ladies, size 38"
    once, twice = score([title, f"{title} | {title.upper()}"])
    assert set(once.values()) == {0.0}
    assert twice["caption_repeated_words"] == 0.5
    assert twice["caption_top_2gram"] == pytest.approx(len("ladiessize") / len("Redshoesforladiessize38"))
    assert twice["caption_repeated_5grams"] == twice["caption_repeated_6grams"] == 1.0
    assert twice["caption_repeated_7grams"] == 0.0


def test_a_list_of_one_keyword_is_all_repetition() -> None:
    (found,) = score(["sofa, sofa, sofa, sofa"])
    assert found["caption_repeated_words"] == 0.75
    assert found["caption_top_2gram"] == found["caption_top_3gram"] == 1.0


def test_characters_of_a_script_without_blanks_are_words() -> None:
    (found,) = score(["红鞋红鞋红鞋"])
    assert found["caption_repeated_words"] == pytest.approx(4 / 6) and found["caption_top_2gram"] == 1.0


def test_a_caption_without_words_has_no_repetition_to_speak_of() -> None:
    for found in score([None, "", " … !"]):
        assert set(found.values()) == {None}


@given(words)
def test_shares_equal_those_counted_by_hand(given_words: list[str]) -> None:
    found = repetition(given_words)
    assert found == pytest.approx([count_by_hand(given_words, place) for place in range(10)])
    assert all(0 <= share <= 1 for share in found)


def count_by_hand(given_words: list[str], place: int) -> float:
    """The share in column `place`: one n-gram after the other, each compared with all others."""
    if place == 0:
        return sum(word in given_words[:at] for at, word in enumerate(given_words)) / len(given_words)
    n = place + 1
    grams = [given_words[at : at + n] for at in range(len(given_words) - n + 1)]
    counts = [grams.count(gram) for gram in grams]
    if max(counts, default=0) < 2:
        return 0.0
    chosen = [[gram] for gram, count in zip(grams, counts, strict=True) if count == max(counts)]
    if n > 4:
        chosen = [[gram for gram, count in zip(grams, counts, strict=True) if count > 1]]
    total = sum(map(len, given_words))
    return max(_count_covered(given_words, grams, some, n) for some in chosen) / total


def _count_covered(given_words: list[str], grams: list[list[str]], some: list[list[str]], n: int) -> int:
    starts = [at for at, gram in enumerate(grams) if gram in some]
    return sum(len(word) for place, word in enumerate(given_words) if any(0 <= place - at < n for at in starts))
