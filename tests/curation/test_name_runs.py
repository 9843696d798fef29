"""Lists of names are folded and expanded without a change, and a record cannot ask for endless names."""

from pathlib import Path

import pytest

from curation import name_runs
from curation.errors import UserError
from curation.name_runs import expand_names, fold_names
from curation.storage import Root

LONG = [f"selection/0123456789ab/0a1b2c3d-{number:06d}.parquet" for number in range(40, 1_300)]


def test_a_long_run_is_one_text_and_gives_back_its_names() -> None:
    assert fold_names(LONG) == ["selection/0123456789ab/0a1b2c3d-{000040..001299}.parquet"]
    assert expand_names(fold_names(LONG)) == LONG


def test_short_runs_gaps_and_other_names_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_runs, "MIN_NAMES", 3)
    names = ["t/a-000000.tar", "t/a-000001.tar", "t/a-000003.tar", "t/a-000004.tar", "t/a-000005.tar", "t/a-7.tar"]
    names += ["t/b-000006.tar", "t/b-000007.tar", "t/b-000008.parquet", "t/sizes.json", "t/a-0000006.tar", "t/{x..y}"]
    assert fold_names(names) == [*names[:2], "t/a-{000003..000005}.tar", *names[5:]]
    assert expand_names(fold_names(names)) == names


def test_a_version_of_many_files_has_a_short_record_and_reads_as_before(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.create(sealed=True)
    root.publish_current("selection", "0123456789ab", LONG, {}, {})
    assert root.size("selection/current.json") < 300
    current = root.current("selection")
    assert current is not None and current["files"] == LONG
    root.publish_version("selection", {**current, "files": LONG[:-1]})
    assert (root.current("selection") or {})["files"] == LONG[:-1]


def test_a_record_that_names_endless_files_is_refused(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.create()
    record = {"fingerprint": "f", "files": ["a-{000000..999999999999}.tar"], "config": {}, "inputs": {}, "version": "0"}
    root.publish_json("train/current.json", record)
    with pytest.raises(UserError, match=r"train/current.json is damaged \(.* names more than"):
        root.current("train")
