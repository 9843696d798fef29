"""Addresses, file names, markup and boilerplate in captions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from curation.errors import UserError
from filters.caption_web import url_share


def score(captions: list[str | None], **options: object) -> tuple[list[float | None], list[float | None]]:
    batch = pa.RecordBatch.from_pydict({"caption": pa.array(captions, pa.string())})
    found = filters.build("caption_web", options).apply(batch).to_pydict()
    return found["caption_url_share"], found["caption_boilerplate_share"]


@pytest.mark.parametrize(
    "text",
    [
        "https://shop.example/a?b=c",
        "www.example.test",
        "(example.com)",
        "EXAMPLE.CO.UK,",
        "someone@mail.example.de",
        "example.de/picture",
        "IMG_1234.jpg",
        "my-photo(1).webp",
        "<b></b>",
        "&nbsp;&#8217;&amp;",
    ],
)
def test_addresses_files_and_markup_are_all_of_it(text: str) -> None:
    core = text.strip("(),")
    assert url_share(text) == pytest.approx(len(core) / len(text))


@pytest.mark.parametrize("text", ["A dog.", "Mr.Smith", "U.S. 3.5 cm", "e.g. this…", "a < b > c", "R&D; and so on"])
def test_words_with_dots_are_no_addresses(text: str) -> None:
    assert url_share(text) == 0.0


def test_shares_are_of_the_characters_that_one_sees() -> None:
    assert score(["at a.com now", None, "", " \n"])[0] == [pytest.approx(5 / 10), None, None, None]


def test_phrases_of_pages_are_counted_by_their_words() -> None:
    captions = ["Stock-Photo: a dog, ROYALTY free", "a free dog", "Lorem ipsum", "!", None]
    assert score(captions)[1] == [pytest.approx(4 / 6), 0.0, 1.0, None, None]


def test_phrases_of_a_file_take_the_place_of_ours(tmp_path: Path) -> None:
    (tmp_path / "phrases.txt").write_text("\ufeffJetzt kaufen\n\n", encoding="utf-8")
    assert score(["jetzt kaufen!", "buy now"], phrases=str(tmp_path / "phrases.txt"))[1] == [1.0, 0.0]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe"])
def test_a_file_without_phrases_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "phrases.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"phrases\.txt"):
        filters.build("caption_web", {"phrases": str(tmp_path / "phrases.txt")}).check_ready()


@given(st.text("ab.@/<>& :-#;", max_size=80))
def test_any_text_has_a_share(text: str) -> None:
    share, _ = score([text])
    assert share[0] is None if not text.split() else 0 <= (share[0] or 0.0) <= 1


@pytest.mark.timeout(300)  # it takes a second; what goes over the rest of a caption from each of its places takes hours
@pytest.mark.parametrize("piece", ["<a", "a.", "a-", "&a", "."])
def test_hostile_captions_are_gone_through_once(piece: str) -> None:
    score([piece * 1_000_000 + "@"])
