"""What is said of one picture: its columns, each decision with its reason, and its copies."""

from __future__ import annotations

from typing import Any

import pytest

from curation.browse.desk import Desk
from curation.browse.details import describe_picture
from curation.errors import UserError
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import SmallRoot


def decisions(found: dict[str, Any]) -> list[tuple[str, bool | None]]:
    return [(one["step"], one["passed"]) for one in found["decisions"]]


def pick(desk: Desk, condition: str) -> str:
    rows = desk.fetch(desk.manifest.query(f"select uid from manifest where {condition} order by uid limit 1"))
    return str(rows[0]["uid"])


def test_a_kept_picture_passed_everything(desk: Desk) -> None:
    found = describe_picture(
        desk, pick(desk, "kept and duplicate_of is null and uid not in (from duplicates select kept_uid)")
    )
    expected = [("download", True), ("duplicates", True), ("wide", True), ("selection", True), ("packed", True)]
    assert decisions(found) == expected and found["group"] == []
    rule = found["decisions"][2]
    assert rule["why"] == "width / height >= 1.2" and set(rule["values"]) == {"width", "height"}


def test_a_refused_picture_says_which_rule_was_the_reason(desk: Desk) -> None:
    found = describe_picture(desk, pick(desk, "reason = 'wide' and duplicate_of is null"))
    (rule,) = [one for one in found["decisions"] if one.get("is_reason")]
    assert rule["step"] == "wide" and rule["passed"] is False
    assert found["decisions"][-1] == {"step": "selection", "passed": False, "why": "not kept: wide", "values": {}}


def test_a_lost_picture_says_how_its_download_ended(desk: Desk) -> None:
    found = describe_picture(desk, pick(desk, "status <> 'ok'"))
    assert decisions(found) == [("download", False)]
    assert found["decisions"][0]["why"].endswith(": it is gone")


def test_copies_stand_together_with_the_one_that_is_kept_first(desk: Desk) -> None:
    removed = pick(desk, "duplicate_of is not null")
    found = describe_picture(desk, removed)
    kept = found["columns"]["duplicates"]["duplicate_of"]
    assert [(one["uid"], one["tier"]) for one in found["group"]] == [(kept, None), (removed, "perceptual")]
    assert ("duplicates", False) in decisions(found)
    assert [one["uid"] for one in describe_picture(desk, kept)["group"]] == [kept, removed]


def test_every_column_of_the_manifest_is_there_by_its_table(desk: Desk) -> None:
    found = describe_picture(desk, pick(desk, "kept"))["columns"]
    assert [name for names in found.values() for name in names] == desk.manifest.columns("manifest")
    assert found["scores_caption_length"] == {"caption_words": 3}


def test_a_uid_that_is_not_there_is_one_sentence(desk: Desk) -> None:
    with pytest.raises(UserError, match="no row with the uid o'clock"):
        describe_picture(desk, "o'clock")


def test_rules_that_cannot_be_asked_here_are_said_not_to_have_been_asked(root: Root) -> None:
    from curation.manifest.manifest import Manifest

    made: SmallRoot = small_root.finish(root)
    current = root.current("selection")
    assert current is not None
    texts = {
        "listed": "domain not in file('none.txt')",
        "seldom": "count(*) over (partition by caption) <= 10",
        "gone": "a_score_that_was_deleted > 3",
        "high": "aesthetic >= quantile(aesthetic, 0.5)",
    }
    quantiles = [{"column": "aesthetic", "share": 0.5, "value": 100.0}]
    config = {"rules": texts, "order": [*texts], "quantiles": quantiles}
    root.publish_current("selection", small_root.VERSION, current["files"], config, {})
    desk = Desk(Manifest(root))
    found = describe_picture(desk, sorted(made.images)[0])
    desk.close()
    passed = {one["step"]: one["passed"] for one in found["decisions"] if one.get("is_rule")}
    assert passed == {"listed": None, "seldom": None, "gone": None, "high": False}
