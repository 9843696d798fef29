"""Whether versions were made from what the root holds now, by content, and who says so."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curation.errors import UserError
from curation.freshness import Fingerprints, check_fresh, check_not_mixed, find_mixed, find_stale
from curation.report import status_text
from curation.storage import Root
from curation.tables import METADATA, fingerprint_sizes, fingerprint_table, metadata_file, vectors_file
from curation.verify import verify
from tests.support import small_root
from tests.support.command import Command
from tests.support.small_root import UNITS, VERSION, SmallRoot


@pytest.fixture
def made(root: Root) -> SmallRoot:
    """Duplicates, a selection of them, and train shards of that, each with its inputs recorded."""
    made = small_root.build(root)
    ok = sorted(made.images)
    small_root.duplicates(made, {ok[0]: ok[1]})
    _write_scores(root, 1)
    small_root.pack(made, small_root.select(made))
    record(root, "duplicates", samples=fingerprint_table(root, "samples"))
    record(root, "selection", duplicates=VERSION, scores_words=fingerprint_table(root, "scores_words"))
    record(root, "train_index", selection=VERSION, scores_words=fingerprint_table(root, "scores_words"))
    return made


def _write_scores(root: Root, number: int) -> None:
    for unit in UNITS:
        rows = root.read_parquet(f"downloads/{unit}.parquet", ["uid", "status"])
        uids = rows.filter(pc.equal(rows["status"], "ok"))["uid"]
        root.publish_parquet(f"scores_words/{unit}.parquet", pa.table({"uid": uids, "num_words": [number] * len(uids)}))


def record(root: Root, table: str, **inputs: Any) -> None:
    current = root.current(table)
    assert current is not None
    root.publish_current(table, current["fingerprint"], current["files"], current["config"], inputs)


def replace_version(root: Root, table: str) -> None:
    """Make the same files another version, as a stage that ran anew would."""
    current = root.current(table)
    assert current is not None
    root.publish_current(table, VERSION[::-1], current["files"], current["config"], current["inputs"])


def test_a_root_whose_versions_fit_says_nothing(made: SmallRoot) -> None:
    assert list(find_mixed(made.root)) == list(find_stale(made.root)) == []
    assert verify(made.root) is None
    assert "run `curate" not in status_text(made.root)


def test_duplicates_that_were_made_anew_are_named_everywhere(
    made: SmallRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_version(made.root, "duplicates")
    said = "selection was made from other duplicates than the root has now: run `curate select`."
    assert list(find_mixed(made.root)) == list(find_stale(made.root)) == [said]
    assert verify(made.root) == said
    assert said in status_text(made.root)
    command = Command(capsys)
    assert command("query", made.root.path, "select count(*) from manifest") == 0
    assert command.err == f"curate query: {said}\n"
    with pytest.raises(UserError, match="run `curate select`"):
        check_fresh(Fingerprints(made.root), "selection")
    with pytest.raises(UserError, match="run `curate select`"):
        check_not_mixed(made.root, ("selection",))


def test_a_selection_that_was_made_anew_asks_for_pack(made: SmallRoot) -> None:
    replace_version(made.root, "selection")
    assert list(find_mixed(made.root)) == [
        "train_index was made from other selection than the root has now: run `curate pack`."
    ]
    assert list(find_mixed(made.root, ("duplicates", "selection"))) == []


def test_scores_of_the_same_names_and_sizes_with_other_values_are_other_scores(made: SmallRoot) -> None:
    before = fingerprint_sizes(made.root, "scores_words")
    _write_scores(made.root, 2)
    assert fingerprint_sizes(made.root, "scores_words") == before
    assert [sentence.partition(" was")[0] for sentence in find_stale(made.root)] == ["selection", "train_index"]
    assert verify(made.root) == "selection was made from other scores_words than the root has now: run `curate select`."


def test_what_earlier_versions_recorded_is_compared_as_it_was_recorded(made: SmallRoot) -> None:
    sizes = {name: fingerprint_sizes(made.root, name) for name in ("samples", "downloads", "scores_words")}
    record(made.root, "selection", duplicates=VERSION, **sizes)
    known = Fingerprints(made.root)
    assert list(find_stale(made.root)) == []
    wanted = {name: known.of(name) for name in sizes} | {"duplicates": VERSION}
    config = {"rules": {"wide": "width / height >= 1.2"}, "order": ["wide"], "lists": None}
    assert known.is_current("selection", config, wanted)
    assert not known.is_current("selection", config | {"order": []}, wanted)
    assert not known.is_current("selection", config, wanted | {"opt_out": "0123456789ab"})
    made.root.publish_parquet(f"scores_words/{UNITS[0]}.parquet", pa.table({"uid": ["x" * 32]}))
    assert not Fingerprints(made.root).is_current("selection", config, wanted)


def test_a_version_made_with_a_list_that_held_something_else_is_not_current(made: SmallRoot) -> None:
    lists = {"opt_out": "0123456789ab", "blocklist:bad": "ba9876543210"}
    record(made.root, "selection", **lists)
    config = {"rules": {"wide": "width / height >= 1.2"}}
    known = Fingerprints(made.root)
    assert known.is_current("selection", config, lists)
    for name in lists:
        assert not known.is_current("selection", config, lists | {name: "f" * 12})


def test_vectors_count_with_the_model_that_made_them(made: SmallRoot) -> None:
    root = made.root
    root.publish(vectors_file(UNITS[0]), b"vectors")
    root.publish_parquet(metadata_file(UNITS[0]), pa.table({"uid": ["x" * 32]}))
    root.begin_stage(METADATA, {"model": "clip"})
    record(root, "duplicates", vectors=Fingerprints(root).of_vectors("clip"), against=["elsewhere"])
    assert list(find_stale(root)) == []
    root.publish(vectors_file(UNITS[0]), b"swapped")
    (said,) = find_stale(root)
    assert said == "duplicates was made from other vectors than the root has now: run `curate dedupe`."


def test_a_root_that_recorded_nothing_is_believed(root: Root) -> None:
    made = small_root.build(root)
    small_root.pack(made, small_root.select(made))
    record_nothing: Any = ["x"]
    root.publish_current("selection", VERSION, (root.current("selection") or {})["files"], {}, record_nothing)
    assert list(find_stale(root)) == []
