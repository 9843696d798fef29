"""Scores of one's own: joined by uid or url, visible to rules, checked for coverage before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.recipe.config import Recipe, ScoresConfig
from curation.recipe.select_config import SelectConfig
from curation.storage import Root
from curation.verify import verify
from jobs import score, selection
from tests.support import small_root
from tests.support.rot import flip_in_pages
from tests.support.small_root import SmallRoot


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


def _write(folder: Path, name: str, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), folder / name)


def _recipe(folder: Path, *, rules: dict[str, str] | None = None, **options: Any) -> Recipe:
    config = ScoresConfig(**{"paths": ("mine-*.parquet",), **options})
    return Recipe(scores={"mine": config}, rules=rules or {}, folder=str(folder), select=SelectConfig(threads=1))


def _mark(uid: str) -> float:
    return int(uid[:4], 16) / 0xFFFF


@pytest.mark.parametrize("key", ["uid", "url"])
def test_scores_in_files_decide_as_those_of_filters(
    made: SmallRoot, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uids = sorted(made.samples)
    for number, some in enumerate((uids[::2], uids[1::2])):
        keys = some if key == "uid" else [made.samples[uid]["url"] for uid in some]
        columns = {key: keys, "mark": [_mark(uid) for uid in some], "word": ["a" * (len(u) % 3) for u in some]}
        _write(tmp_path, f"mine-{number}.parquet", columns)
    recipe = _recipe(tmp_path, rules={"good": "mark >= 0.5"})
    score.check(recipe, made.root)
    score.run_here(recipe, made.root)
    assert f"scores.mine covers {len(made.images)} of {len(made.images)} pictures" in capsys.readouterr().err
    selection.run_here(recipe, made.root)
    with Manifest(made.root) as manifest:
        rows = manifest.query("select uid, mark, kept from manifest where status = 'ok'").fetchall()
    assert {uid for uid, _, _ in rows} == set(made.images)
    assert all(mark == pytest.approx(_mark(uid)) and kept == (mark >= 0.5) for uid, mark, kept in rows)
    assert verify(made.root) is None and {kept for _, _, kept in rows} == {True, False}
    before = made.root.units("scores_mine")
    score.run_here(recipe, made.root)
    assert made.root.units("scores_mine") == before and "covers" not in capsys.readouterr().err


@pytest.mark.parametrize("stage", [score.check, score.run_here])
def test_other_scores_under_the_same_name_are_refused_when_the_table_stands(
    made: SmallRoot, tmp_path: Path, stage: Callable[[Recipe, Root], None]
) -> None:
    uids = sorted(made.samples)
    _write(tmp_path, "mine-0.parquet", {"uid": uids, "mark": [0.25] * len(uids)})
    score.run_here(_recipe(tmp_path), made.root)
    stage(_recipe(tmp_path), made.root)
    (tmp_path / "mine-0.parquet").rename(tmp_path / "mine-of-another-name.parquet")
    stage(_recipe(tmp_path), made.root)
    _write(tmp_path, "mine-0.parquet", {"uid": uids, "mark": [0.75] * len(uids)})
    with pytest.raises(UserError, match=r"scores_mine was made with other settings \(files differ\)"):
        stage(_recipe(tmp_path), made.root)


def test_too_few_scores_are_refused_and_unknown_where_allowed(made: SmallRoot, tmp_path: Path) -> None:
    some = sorted(made.images)[::2]
    _write(tmp_path, "mine-0.parquet", {"uid": [*some, "f" * 32], "mark": [1.0] * len(some) + [0.5]})
    with pytest.raises(UserError, match=rf"covers {len(some)} of {len(made.images)} pictures \(50.00 %\)"):
        score.run_here(_recipe(tmp_path), made.root)
    assert not made.root.exists("scores_mine")
    score.run_here(_recipe(tmp_path, min_coverage=0.5), made.root)
    with Manifest(made.root) as manifest:
        known = manifest.query("select uid from manifest where mark = 1").fetchall()
    assert sorted(uid for (uid,) in known) == some and verify(made.root) is None


@pytest.mark.parametrize("key", ["uid", "url"])
def test_scores_of_rows_that_the_root_does_not_have_are_counted_and_refused_when_all_are(
    made: SmallRoot, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [uid if key == "uid" else made.samples[uid]["url"] for uid in sorted(made.samples)]
    _write(tmp_path, "mine-0.parquet", {key: ["0other", "1other"], "mark": [0.5, 1.0]})
    with pytest.raises(UserError, match=f"none of its 2 {key}s is that of a sample of this root, such as 0other"):
        score.run_here(_recipe(tmp_path, min_coverage=0.0), made.root)
    assert not made.root.exists("scores_mine")
    _write(tmp_path, "mine-1.parquet", {key: keys, "mark": [0.25] * len(keys)})
    score.run_here(_recipe(tmp_path), made.root)
    said = f"scores.mine has 2 of {len(keys) + 2} {key}s that are of no sample of this root\nscores.mine covers "
    assert said in capsys.readouterr().err


def test_a_key_with_two_scores_is_refused(made: SmallRoot, tmp_path: Path) -> None:
    uids = sorted(made.samples)
    _write(tmp_path, "mine-0.parquet", {"uid": [*uids, uids[0], uids[1]], "mark": [1.0] * len(uids) + [0.5, 1.0]})
    with pytest.raises(UserError, match=f"uid {uids[0]} with 2 different scores"):
        score.run_here(_recipe(tmp_path), made.root)
    assert not made.root.exists("scores_mine")


def test_a_damaged_page_is_named(made: SmallRoot, tmp_path: Path) -> None:
    path = tmp_path / "mine-0.parquet"
    table = pa.table({"uid": sorted(made.images), "mark": [_mark(uid) for uid in sorted(made.images)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    flip_in_pages(path)
    with pytest.raises(UserError, match=r"mine-0.parquet is not readable as parquet \(.*CRC"):
        score.run_here(_recipe(tmp_path), made.root)


def test_a_filter_and_a_file_may_not_give_one_column(tmp_path: Path, root: Root) -> None:
    _write(tmp_path, "mine-0.parquet", {"uid": ["a"], "aspect_ratio": [1.0]})
    recipe = _recipe(tmp_path)
    both = Recipe(scores=recipe.scores, filters={"aspect_ratio": {}}, folder=recipe.folder)
    with pytest.raises(UserError, match="filter aspect_ratio both give aspect_ratio"):
        score.check(both, root)
