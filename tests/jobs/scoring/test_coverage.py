"""What is said and refused of scores of one's own before any stage begins, without Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.plan import ADOPTED
from curation.recipe.config import Recipe, ScoresConfig, SourceConfig
from curation.storage import Root
from curation.tables import plan_file
from jobs import score
from jobs.scoring import coverage
from jobs.scoring.coverage import measure_coverage
from jobs.scoring.joined_columns import plan_joined_scores
from tests.support import small_root
from tests.support.command import Command, contents
from tests.support.small_root import BATCH, UNITS, SmallRoot


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


def _write(folder: Path, key: str, keys: list[Any]) -> None:
    pq.write_table(pa.table({key: pa.array(keys, pa.string()), "mark": [0.5] * len(keys)}), folder / "mine.parquet", 7)


def _recipe(folder: Path, **options: Any) -> Recipe:
    return Recipe(scores={"mine": ScoresConfig(paths=("mine.parquet",), **options)}, folder=str(folder))


def _check(capsys: pytest.CaptureFixture[str], recipe: Recipe, root: Root) -> str:
    """What `curate score` says before it begins."""
    capsys.readouterr()
    score.check(recipe, root)
    return capsys.readouterr().err


def test_a_file_of_another_root_is_refused_in_one_sentence_before_work_begins(
    made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, recipe = Command(capsys), tmp_path / "recipe.toml"
    _write(tmp_path, "uid", ["0other", "1other", None])
    made.root.publish_json(plan_file(BATCH), {**made.root.read_json(plan_file(BATCH)), ADOPTED: True})
    recipe.write_text('[scores.mine]\npaths = ["mine.parquet"]\nmin_coverage = 0.0\n[rules]\ngood = "mark > 0"\n')
    before = contents(Path(made.root.path))
    for call in ("check", "score"):
        assert command(call, "--recipe", recipe, "--root", made.root.path) == 2
        assert command.err.splitlines()[-1].startswith(
            "curate: [scores.mine]: none of its 2 uids is that of a sample of this root, such as 0other: "
        )
    assert contents(Path(made.root.path)) == before


@pytest.mark.parametrize("key", ["uid", "url"])
def test_rows_of_no_sample_and_samples_without_a_row_are_counted_in_one_sentence(
    made: SmallRoot, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    some = sorted(made.images)[::2]
    keys = [uid if key == "uid" else made.samples[uid]["url"] for uid in some]
    _write(tmp_path, key, [*keys, "0other", "0other", keys[0], None])
    recipe = _recipe(tmp_path, min_coverage=0.5)
    lacking = len(made.samples) - len(some)
    assert _check(capsys, recipe, made.root) == (
        f"scores.mine: 1 of its {len(some) + 1} {key}s are of no sample of this root, "
        f"and {lacking} of {len(made.samples)} samples have no row in it\n"
    )
    (item,) = plan_joined_scores(recipe)
    found = measure_coverage(made.root, item, recipe.select)
    assert (found.num_pictures, found.num_covered, found.num_awaited) == (len(made.images), len(some), 0)


def test_nothing_is_said_of_files_that_fit(made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path, "uid", sorted(made.samples))
    assert _check(capsys, _recipe(tmp_path), made.root) == ""


def test_pictures_that_came_without_a_score_are_refused_however_the_download_ends(
    made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {uid for uid in made.images if made.units[uid] == UNITS[0]}
    _write(tmp_path, "uid", sorted(set(made.samples) - {min(first)}))
    with pytest.raises(UserError, match=rf"covers {len(made.images) - 1} of {len(made.images)} pictures"):
        score.check(_recipe(tmp_path), made.root)
    assert "1 of 40 samples have no row" in _check(capsys, _recipe(tmp_path, min_coverage=0.9), made.root)
    made.root.remove(f"downloads/{UNITS[0]}.parquet")
    assert "1 of 40 samples have no row" in _check(capsys, _recipe(tmp_path), made.root)


def test_a_share_that_the_rest_of_the_download_may_still_reach_is_not_refused(
    made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, awaited = ([uid for uid in made.samples if made.units[uid] == unit] for unit in UNITS)
    came = [uid for uid in here if uid in made.images]
    _write(tmp_path, "uid", [*awaited, *came[:4]])
    made.root.remove(f"downloads/{UNITS[1]}.parquet")
    best = (len(awaited) + 4) / (len(awaited) + len(came))
    assert "samples have no row" in _check(capsys, _recipe(tmp_path, min_coverage=best - 0.01), made.root)
    with pytest.raises(UserError, match="min_coverage"):
        score.check(_recipe(tmp_path, min_coverage=best + 0.01), made.root)


def test_a_root_without_samples_and_a_table_that_is_done_are_passed_over(
    root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "uid", ["0other"])
    assert _check(capsys, _recipe(tmp_path), root) == ""
    made = small_root.build(root)
    for unit in UNITS:
        made.root.publish_parquet(f"scores_mine/{unit}.parquet", pa.table({"uid": ["a"], "mark": [0.5]}))
    assert _check(capsys, _recipe(tmp_path), made.root) == ""


def test_metadata_that_is_still_to_be_ingested_may_be_what_the_scores_are_of(
    made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "uid", ["0other"])
    pq.write_table(pa.table({"URL": ["http://host.test/1.jpg"], "TEXT": ["a"]}), tmp_path / "new.parquet")
    sources = (SourceConfig(name="new", paths=("new.parquet",)),)
    recipe = Recipe(sources=sources, scores=_recipe(tmp_path).scores, folder=str(tmp_path))
    assert "1 of its 1 uids are of no sample" in _check(capsys, recipe, made.root)


def test_large_roots_are_left_to_the_cluster(
    made: SmallRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage, "MAX_ROWS", 40)
    _write(tmp_path, "uid", ["0other"])
    assert _check(capsys, _recipe(tmp_path), made.root) == ""
