"""`curate merge`: the union of roots with each uid once, the same bytes each time, and nothing forgotten comes back."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.adopt import adopt
from curation.download.tombstones import read_tombstones
from curation.errors import UserError
from curation.forget import forget
from curation.forget.requests import parse_requests
from curation.merging import RECORD, Counts, merge
from curation.merging.messages import describe_merge
from curation.moving import move
from curation.plan import find_plan_inputs, read_plans
from curation.root_lock import hold_all
from curation.selection.rule_set import check_complete
from curation.storage import Root
from curation.verify import find_differences
from tests.support import s3_server
from tests.support.removal import KilledError, Killing, contents, find_left
from tests.support.roots_to_merge import WAITING, build, vector
from tests.support.small_root import SmallRoot, picture, sample

A, B, C = "aaaaaaaa", "bbbbbbbb", "cccccccc"
STATES = ("ok", "timeout", "http_404", "opted_out", "robots", WAITING)


def read_rows(root: Root, table: str) -> dict[str, dict[str, object]]:
    """The rows of a table of units by uid."""
    return {row["uid"]: row for u in root.units(table) for row in root.read_parquet(f"{table}/{u}.parquet").to_pylist()}


def count(counts: Counts, name: str) -> list[int]:
    """How many rows of each root became `name`."""
    return [found[name] for found in counts]


@pytest.fixture
def two(tmp_path: Path) -> tuple[SmallRoot, SmallRoot]:
    """Two roots: rows 1 to 9 in both, of which each has pictures that the other lacks."""
    first = {n: "ok" if n % 2 else "timeout" for n in range(1, 16)}
    second = {n: "ok" if n % 3 else "http_404" for n in [*range(1, 10), *range(20, 30)]}
    return build(tmp_path / "a", A, first), build(tmp_path / "b", B, second)


def test_the_merged_root_has_each_uid_once_and_every_picture_that_came(
    two: tuple[SmallRoot, SmallRoot], tmp_path: Path
) -> None:
    before = [contents(tmp_path / name) for name in "ab"]
    counts = merge([two[0].root, two[1].root], Root(tmp_path / "new"))
    root = Root(tmp_path / "new")
    assert list(find_differences(root)) == []
    assert set(read_rows(root, "samples")) == {*two[0].samples, *two[1].samples}
    came = {uid: row for uid, row in read_rows(root, "downloads").items() if row["status"] == "ok"}
    images = {**two[0].images, **two[1].images}
    assert set(came) == set(images)
    for uid, row in came.items():
        assert root.read_bytes(str(row["shard"]), row["offset"], row["size"]) == images[uid]  # type: ignore[arg-type]
    assert set(read_rows(root, "scores_caption_length")) == set(images)
    assert [sum(found.values()) for found in counts] == [15, 19] and sum(count(counts, "taken")) == 25
    assert count(counts, "has_picture") == [3, 2] and count(counts, "named_earlier") == [0, 4]
    assert [contents(tmp_path / name) for name in "ab"] == before


def test_vectors_stay_with_their_uids(two: tuple[SmallRoot, SmallRoot], tmp_path: Path) -> None:
    root = Root(tmp_path / "new")
    merge([two[0].root, two[1].root], root)
    for unit in root.units("samples"):
        uids = root.read_parquet(f"embeddings/metadata/metadata_{unit}.parquet")["uid"].to_pylist()
        found = np.load(io.BytesIO(root.read_bytes(f"embeddings/img_emb/img_emb_{unit}.npy")))
        assert np.array_equal(found, np.array([vector(uid) for uid in uids], np.float32).reshape(-1, 2))


def test_every_row_that_is_left_out_is_a_reject_of_its_plan(two: tuple[SmallRoot, SmallRoot], tmp_path: Path) -> None:
    root = Root(tmp_path / "new")
    counts = merge([two[0].root, two[1].root], root)
    left_out = [sum(found.values()) - found["taken"] for found in counts]
    assert [plan["totals"]["repeated"] for plan in read_plans(root)] == left_out
    for made, plan, number in zip(two, read_plans(root), left_out, strict=True):
        rows = [row for u in root.units("rejects") if u.startswith(plan["batch"]) for row in
                root.read_parquet(f"rejects/{u}.parquet").to_pylist()]  # fmt: skip
        repeated = {row["uid"] for row in rows if row["reason"] == "repeated"}
        assert len(repeated) == number and repeated <= set(made.samples) and len(rows) == number + 1


@st.composite
def two_or_three_roots(draw: st.DrawFn) -> list[dict[int, str]]:
    """Rows of two or three roots out of a few, so that most are in several."""
    number = draw(st.integers(2, 3))
    rows = st.dictionaries(st.integers(1, 12), st.sampled_from(STATES), min_size=1, max_size=8)
    return [draw(rows) for _ in range(number)]


def expect(roots: list[dict[int, str]]) -> dict[int, str]:
    """Independently of the order: what each row is in the union."""
    states: dict[int, set[str]] = {}
    for rows in roots:
        for number, state in rows.items():
            states.setdefault(number, set()).add(state)
    return {number: _best(found) for number, found in states.items()}


def _best(found: set[str]) -> str:
    if found & {"opted_out", "robots"}:
        return "refused"
    return "ok" if "ok" in found else WAITING if found == {WAITING} else "failed"


def describe(root: Root) -> dict[str, str]:
    """The state of each uid of `root`, as `expect` names it."""
    states = {str(uid): str(row["status"]) for uid, row in read_rows(root, "downloads").items()}
    named = {uid: states.get(uid, WAITING) for uid in read_rows(root, "samples")}
    known = {"ok": "ok", WAITING: WAITING, "opted_out": "refused", "robots": "refused"}
    return {uid: known.get(state, "failed") for uid, state in named.items()}


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(two_or_three_roots())
def test_no_row_is_lost_and_the_order_of_the_roots_decides_only_between_equal_rows(roots: list[dict[int, str]]) -> None:
    wanted = {sample(number)["uid"]: state for number, state in expect(roots).items()}
    with tempfile.TemporaryDirectory() as folder:
        made = [build(f"{folder}/{batch}", batch, rows).root for batch, rows in zip((A, B, C), roots, strict=False)]
        for number, order in enumerate(permutations(made)):
            target = Root(f"{folder}/new{number}")
            counts = merge(order, target)
            assert describe(target) == wanted
            assert sum(count(counts, "taken")) == len(wanted)
            assert [sum(found.values()) for found in counts] == [_count_samples(root) for root in order]
        allowed = re.compile("downloads/.* is missing, though other units are downloaded")
        assert all(allowed.match(found) for found in find_differences(target))


def _count_samples(root: Root) -> int:
    return sum(plan["totals"]["samples"] for plan in read_plans(root))


def test_what_was_forgotten_in_one_root_comes_back_from_none(tmp_path: Path) -> None:
    states = dict.fromkeys(range(1, 21), "ok")
    first, second = build(tmp_path / "a", A, states), build(tmp_path / "b", B, states)
    by_url, by_sum = (sample(number)["uid"] for number in (3, 4))
    requests = parse_requests(urls=[first.samples[by_url]["url"]], sums=[first.downloads[by_sum]["sha256"]])
    forget(first.root, requests, reason="asked", date="2026-11-28")
    by_host = {uid for uid, row in second.samples.items() if row["domain"] == "host2.test"}
    forget(second.root, parse_requests(hosts=["host2.test"]), reason="asked", date="2026-11-27")
    for number, order in enumerate(permutations([Root(tmp_path / "a"), Root(tmp_path / "b")])):
        target = Root(tmp_path / f"new{number}")
        counts = merge(order, target)
        assert list(find_differences(target)) == []
        gone = {by_url, by_sum, *by_host}
        assert set(read_rows(target, "samples")) == set(first.samples) - gone
        assert find_left(tmp_path / f"new{number}", first, gone) == []
        assert sum(count(counts, "forgotten")) == len(gone) and len(gone) == 6
        rejected = Counter(plan["totals"].get("forgotten", 0) for plan in read_plans(target))
        assert rejected == Counter([6, 6])
        assert set(read_tombstones(target).rows) == {row for root in order for row in read_tombstones(root).rows}


def test_a_url_that_one_root_was_refused_brings_no_picture_under_another_caption(tmp_path: Path) -> None:
    first = build(tmp_path / "a", A, {1: "opted_out", 2: "ok"})
    second = build(tmp_path / "b", B, {1: "ok", 2: "ok", 3: "ok"}, captions={1: "another caption", 2: "a third one"})
    target = Root(tmp_path / "new")
    counts = merge([second.root, first.root], target)
    states = describe(target)
    refused, other = (uid for uid in second.samples if second.samples[uid]["url"].endswith(("/1.jpg", "/2.jpg")))
    assert (states[refused], states[other], states[sample(1)["uid"]]) == ("refused", "ok", "refused")
    assert set(read_rows(target, "scores_caption_length")) == {uid for uid in states if states[uid] == "ok"}
    assert len(states) == 5 and count(counts, "taken") == [3, 2]
    assert list(find_differences(target)) == []
    assert all(second.images[refused] not in data for data in contents(tmp_path / "new").values())


def test_a_kill_anywhere_and_the_command_again_end_in_the_same_bytes(
    two: tuple[SmallRoot, SmallRoot], tmp_path: Path
) -> None:
    roots = [two[0].root, two[1].root]
    counting = Killing(None, after=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Root, "put", lambda root, rel, data: counting.put(root, rel, data))
        merge(roots, Root(tmp_path / "whole"))
    wanted = contents(tmp_path / "whole")
    for number in range(0, counting.count, 3):
        killing = Killing(number, after=number % 2 == 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Root, "put", lambda root, rel, data, k=killing: k.put(root, rel, data))
            with pytest.raises(KilledError):
                merge(roots, Root(tmp_path / "killed"))
        merge(roots, Root(tmp_path / "killed"))
        assert contents(tmp_path / "killed") == wanted, number
        shutil.rmtree(tmp_path / "killed")


def test_a_merge_that_is_done_does_nothing_again_and_a_root_that_changed_since_is_named(
    two: tuple[SmallRoot, SmallRoot], tmp_path: Path
) -> None:
    roots, target = [two[0].root, two[1].root], Root(tmp_path / "new")
    first = merge(roots, target)
    forget(target, parse_requests(uids=[min(two[0].samples)]), reason="asked", date="2026-11-28")
    before = contents(tmp_path / "new")
    assert merge(roots, target) == first and contents(tmp_path / "new") == before
    forget(two[1].root, parse_requests(uids=[sample(25)["uid"]]), reason="asked", date="2026-11-28")
    with pytest.raises(UserError, match="b has changed since .*new was merged of it"):
        merge(roots, target)
    with pytest.raises(UserError, match="is merged of other roots"):
        merge([two[1].root, two[0].root], target)


def test_roots_of_the_same_metadata_are_merged_under_two_batches(tmp_path: Path) -> None:
    first = build(tmp_path / "a", A, {1: "ok", 2: "timeout", 3: "ok"})
    second = build(tmp_path / "b", A, {1: "timeout", 2: "ok", 3: "ok"})
    target = Root(tmp_path / "new")
    merge([first.root, second.root], target)
    assert list(find_differences(target)) == []
    assert set(describe(target).values()) == {"ok"} and len(target.list("plans", ".json")) == 2
    assert {plan["merged"] for plan in read_plans(target)} == {A}


def test_a_merged_root_can_be_merged_again_and_says_where_lost_samples_were(
    two: tuple[SmallRoot, SmallRoot], tmp_path: Path
) -> None:
    target, third = Root(tmp_path / "new"), build(tmp_path / "c", C, {1: "ok", 40: "ok"})
    merge([two[0].root, two[1].root], target)
    again = Root(tmp_path / "again")
    merge([target, third.root], again)
    assert list(find_differences(again)) == [] and len(describe(again)) == 26
    with pytest.raises(UserError, match="which `curate merge` took over: merge into a new root"):
        find_plan_inputs(read_plans(target)[0], [], [])


def test_adopted_pictures_stay_where_they_lie_and_their_names_are_hidden_when_forgotten(tmp_path: Path) -> None:
    for name, numbers in (("one", range(6)), ("two", range(4, 9))):
        (tmp_path / f"pictures-{name}").mkdir()
        for number in numbers:
            (tmp_path / f"pictures-{name}" / f"{number}.jpg").write_bytes(picture(number + 1))
        adopt(Root(tmp_path / name), [str(tmp_path / f"pictures-{name}")])
    first, second = Root(tmp_path / "one"), Root(tmp_path / "two")
    gone = next(row for row in read_rows(second, "downloads").values() if str(row["shard"]).endswith("/4.jpg"))
    forget(second, parse_requests(sums=[str(gone["sha256"])]), reason="asked", date="2026-11-28")
    target = Root(tmp_path / "new")
    counts = merge([first, second], target)
    assert list(find_differences(target)) == []
    assert count(counts, "forgotten") == [1, 0] and count(counts, "taken") == [5, 4]
    listed = [n for u in target.units("listings") for n in
              target.read_parquet(f"listings/{u}.parquet")["file"].to_pylist()]  # fmt: skip
    assert "4.jpg" not in listed and len(listed) == 11


def test_select_refuses_what_the_merge_did_not_take_over(two: tuple[SmallRoot, SmallRoot], tmp_path: Path) -> None:
    target = Root(tmp_path / "new")
    waiting = build(tmp_path / "c", C, {50: WAITING})
    merge([two[0].root, two[1].root, waiting.root], target)
    with pytest.raises(UserError, match="there are none yet: run `curate dedupe` first"):
        check_complete(target, ["samples", "duplicates"])
    with pytest.raises(UserError, match="downloads lacks 1 units .* run `curate download` first"):
        check_complete(target, ["samples", "downloads"])
    assert "go on with `curate download`, `curate embed`, `curate dedupe`" in describe_merge([], target, [])


@pytest.mark.slow
def test_a_merge_on_a_store_gives_the_same_bytes(two: tuple[SmallRoot, SmallRoot], tmp_path: Path) -> None:
    with s3_server.s3() as endpoint:
        options = s3_server.options(endpoint)
        made = [Root(f"s3://curation/{name}", **options) for name in "ab"]
        for local, store in zip(two, made, strict=True):
            move(local.root, store)
        target = Root("s3://curation/new", **options)
        merge(made, target)
        assert list(find_differences(target)) == []
        move(target, Root(tmp_path / "back"))
    merge([two[0].root, two[1].root], Root(tmp_path / "new"))
    here, there = contents(tmp_path / "new"), contents(tmp_path / "back")
    assert {**here, RECORD: b""} == {**there, RECORD: b""}


def test_settings_that_clash_are_one_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    first = build(tmp_path / "a", A, {1: "ok"})
    larger = build(tmp_path / "b", B, {2: "ok"}, configs={"downloads": {"image_size": 224}})
    with pytest.raises(UserError, match=r"downloads of .*a and of .*b were made with .* \(image_size differ"):
        merge([first.root, larger.root], Root(tmp_path / "new"))
    other = build(tmp_path / "c", C, {2: "ok"}, configs={"embeddings/metadata": {"model": "large"}})
    with pytest.raises(UserError, match=r"\(model differ\): give --without embeddings, and `curate embed` makes it"):
        merge([first.root, other.root], Root(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    merge([first.root, other.root], Root(tmp_path / "new"), ["embeddings"])
    assert not (tmp_path / "new" / "embeddings").exists()
    assert list(find_differences(Root(tmp_path / "new"))) == []


def test_wrong_input_is_one_sentence_and_nothing_is_written(two: tuple[SmallRoot, SmallRoot], tmp_path: Path) -> None:
    first, second, target = two[0].root, two[1].root, Root(tmp_path / "new")
    with pytest.raises(UserError, match="One root alone is nothing to merge"):
        merge([first], target)
    with pytest.raises(UserError, match="--without takes a table of vectors or scores, and samples is none"):
        merge([first, second], target, ["samples"])
    with pytest.raises(UserError, match="is no root"):
        merge([first, Root(tmp_path / "nothing")], target)
    with pytest.raises(UserError, match="is a root already: name a new folder"):
        merge([first, second], build(tmp_path / "c", C, {1: "ok"}).root)
    with (
        pytest.raises(UserError, match="a is named twice: name each root once"),
        hold_all([first, second, Root(tmp_path / "a")], target),
    ):
        pass
    (tmp_path / "b" / "samples" / f"{B}-000000.parquet").unlink()
    with pytest.raises(UserError, match=f"b lacks samples or rejects of {B}-000000"):
        merge([first, Root(tmp_path / "b")], target)
    assert not (tmp_path / "new").exists()


def test_a_damaged_picture_is_not_taken_over(two: tuple[SmallRoot, SmallRoot], tmp_path: Path) -> None:
    made = two[1]
    row = made.downloads[sample(20)["uid"]]
    path = tmp_path / "b" / row["shard"]
    data = bytearray(path.read_bytes())
    data[row["offset"] + row["size"] // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="is damaged"):
        merge([two[0].root, made.root], Root(tmp_path / "new"))
