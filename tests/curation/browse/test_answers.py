"""What the page asks and gets: where it begins, its walls, counts, and words."""

from __future__ import annotations

import pytest

from curation.browse.answers import MAX_TEXT
from curation.errors import UserError
from tests.curation.browse.conftest import Asking
from tests.support.small_root import UNITS, SmallRoot


def test_the_page_begins_with_what_the_selection_keeps(ask: Asking, made: SmallRoot) -> None:
    found = ask("start")
    assert (found["name"], found["num_units"], found["where"]) == ("root", len(UNITS), "kept")


def test_the_summary_has_the_funnel_and_every_column(ask: Asking, made: SmallRoot) -> None:
    found = ask("summary")
    counts = {(row["stage"], row["reason"]): row["count"] for row in found["funnel"]}
    assert counts[("samples", None)] == len(made.samples) and counts[("pictures", None)] == len(made.images)
    assert {"table": "scores_caption_length", "name": "caption_words", "type": "INTEGER"} in found["columns"]


def test_a_row_on_the_wall_tells_no_place(ask: Asking, made: SmallRoot) -> None:
    (row,) = ask("wall", words="thing 4 photo", where="ignored")["rows"][:1]
    assert row["caption"].startswith("a photo of thing") and row["width"] and row["height"]
    assert not {"shard", "offset", "size", "stored_sha256"} & {*row, *row["values"]}
    (row,) = ask("wall", where="shard is not null and clip_similarity > 0")["rows"][:1]
    assert set(row["values"]) == {"clip_similarity"}


def test_pictures_of_which_nothing_is_known_count_as_unsafe(ask: Asking, made: SmallRoot) -> None:
    for row in ask("wall")["rows"]:
        assert row["is_safe"] == (made.samples[row["uid"]]["punsafe"] <= 0.5)


def test_counts_are_of_the_rows_that_the_wall_shows(ask: Asking, made: SmallRoot) -> None:
    assert ask("count", where="")["num_rows"] == len(made.samples)
    assert ask("count", where="status = 'ok' order by width")["num_rows"] == len(made.images)
    assert ask("count", where="true order by claimed_width")["num_rows"] == 0
    words = ask("count", words="THING 4")["num_rows"]
    assert words == sum(
        " 4" in row["caption"] or "4 " in row["caption"] for row in made.samples.values() if row["caption"]
    )


def test_what_rules_remove_and_what_only_one_of_two_selections_has(ask: Asking, made: SmallRoot) -> None:
    rows = [row for row in made.downloads.values() if row["status"] == "ok"]
    low = {row["uid"] for row in rows if made.samples[row["uid"]]["aesthetic"] < 5}
    narrow = {row["uid"] for row in rows if row["width"] / row["height"] < 1.2}
    assert 0 < len(low & narrow) < len(low)

    def find(**asked: str) -> set[str]:
        found = {row["uid"] for row in ask("wall", **asked)["rows"]}
        assert ask("count", **asked)["num_rows"] == len(found)
        return found

    assert find(removes="aesthetic >= 5") == low
    assert find(removes="aesthetic >= 5", minus="where:reason = 'wide'") == low - narrow
    assert find(where="reason = 'wide'", minus="removes:aesthetic >= 5") == narrow - low
    assert find(where="reason = 'wide'", minus="words:no such word") == narrow


def test_copies_of_a_picture_come_with_their_tier(ask: Asking, made: SmallRoot) -> None:
    removed = ask("wall", where="duplicate_of is not null")["rows"][0]["uid"]
    first, second = ask("picture", uid=removed)["group"]
    assert (first["tier"], first["similarity"]) == (None, None) and "shard" not in first
    assert (second["uid"], second["tier"], round(second["similarity"], 2)) == (removed, "perceptual", 0.97)


@pytest.mark.parametrize("question", ["nothing", "close", "_count"])
def test_other_questions_are_refused(ask: Asking, question: str) -> None:
    with pytest.raises(UserError, match="There is no question"):
        ask(question)


def test_a_text_without_end_is_refused(ask: Asking) -> None:
    with pytest.raises(UserError, match="A condition may have"):
        ask("wall", where="x" * (MAX_TEXT + 1))
