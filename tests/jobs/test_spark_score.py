"""One scoring by two engines: processes with DuckDB on this machine and Spark write the same files, byte for byte."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import filters
from curation.errors import UserError
from curation.recipe.config import Recipe, ScoresConfig
from curation.recipe.select_config import SelectConfig
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from curation.tables import metadata_file, score_tables, vectors_file
from curation.verify import verify
from jobs import score, spark_score
from jobs.scoring.joined_rows import score_schema
from jobs.spark.errors import unwrap_task_errors
from tests.support import small_root
from tests.support.demo_run import REPOSITORY
from tests.support.small_root import UNITS, SmallRoot
from tests.support.train_shards import create_root

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Score = Callable[[Recipe, Root], None]
HIDDEN = 'import sys\nsys.modules["pyspark"] = None\nsys.modules["py4j"] = None\n'
OF_CAPTIONS: dict[str, dict[str, Any]] = {
    "caption_length": {},
    "language": {},
    "caption_repetition": {},
    "caption_web": {},
    "words": {"filter": "caption_length"},
}
OF_METADATA: dict[str, dict[str, Any]] = {"aspect_ratio": {}, "clip_score": {}, "watermark_score": {}}
OF_PICTURES: dict[str, dict[str, Any]] = {"blur": {}, "entropy": {"max_side": 64}, "caption_length": {}}
OF_VECTORS: dict[str, dict[str, Any]] = {
    "aesthetic_head": {"head": "head.npz"},
    "nearest_centroid": {"centroids": "c.npy"},
}
KILLED = """
import os, signal, sys
from pathlib import Path
from curation.recipe.config import load_recipe
from curation.storage import Root
from jobs import score

count, put = 0, Root.put

def end_at(self, rel, data):
    global count
    count += 1
    if count < int(sys.argv[3]) or count % 2:  # half of the kills are before the file has its name
        put(self, rel, data)
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

Root.put = end_at
score.run_here(load_recipe(sys.argv[1]), Root(sys.argv[2]))
"""


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


@pytest.fixture
def by_spark(spark: SparkSession) -> Score:
    def run(recipe: Recipe, root: Root) -> None:
        with unwrap_task_errors():
            score.run(spark, recipe, root)

    return run


def make_recipe(folder: Path, **options: Any) -> Recipe:
    return Recipe(folder=str(folder), select=SelectConfig(threads=2), **options)


def read_scores(root: Root) -> dict[str, bytes]:
    """Every file of scores."""
    folder = Path(root.path)
    found = sorted(path for table in score_tables(root) for path in (folder / table).iterdir())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def score_by_both(by_spark: Score, recipe: Recipe, root: Root) -> dict[str, bytes]:
    """The files of scores, which are the same by both."""
    by_spark(recipe, root)
    expected = read_scores(root)
    for table in score_tables(root):
        root.remove(table)
    score.run_here(recipe, root)
    assert read_scores(root) == expected
    return expected


def write_vectors(made: SmallRoot, folder: Path) -> None:
    """Vectors of all pictures but the last of each unit, and what the filters OF_VECTORS read besides."""
    rng = np.random.default_rng(7)
    np.savez(folder / "head.npz", weight=rng.standard_normal((1, 8)), bias=np.array([5.0]))
    np.save(folder / "c.npy", rng.standard_normal((5, 8)).astype(np.float32))
    for unit in UNITS:
        uids = sorted(uid for uid in made.images if made.units[uid] == unit)[:-1][::-1]
        sink = io.BytesIO()
        np.save(sink, rng.standard_normal((len(uids), 8)).astype(np.float16))
        made.root.publish(vectors_file(unit), sink.getvalue())
        made.root.publish_parquet(metadata_file(unit), pa.table({"uid": uids}))


def write_own_scores(made: SmallRoot, folder: Path, *chosen: str) -> dict[str, ScoresConfig]:
    """The sections `chosen`, by_uid and by_url, with columns of every kind, of which some share a name with others."""
    uids = sorted(made.samples)
    numbers = np.arange(len(uids))
    marks = np.where(numbers % 7 == 0, np.nan, np.where(numbers % 5 == 0, -0.0, numbers / 3)).astype(np.float32)
    by_uid = {
        "uid": uids,
        "unit": pa.array([None if n % 4 == 0 else n for n in numbers.tolist()], pa.int16()),
        "found": pa.array([bool(n % 3) for n in numbers.tolist()]),
        "mark": pa.array(marks),
        "word": pa.array([None if n % 6 == 0 else "ä" * (n % 9) for n in numbers.tolist()], pa.large_string()),
    }
    pq.write_table(pa.table(by_uid), folder / "uid-0.parquet", row_group_size=7)
    again = {**by_uid, "mark": pa.array(np.where(marks == 0, np.float32(0), marks))}
    pq.write_table(pa.table(again), folder / "uid-1.parquet")
    urls = sorted({row["url"] for row in made.samples.values()})[:-3]
    by_url = {"url": [*urls, None, "http://nowhere.test/"], "rank": [*range(len(urls)), 7, 8]}
    pq.write_table(pa.table(by_url), folder / "url-0.parquet")
    some = ScoresConfig(paths=("url-*.parquet",), min_coverage=0.5)
    return {name: {"by_uid": ScoresConfig(paths=("uid-*.parquet",)), "by_url": some}[name] for name in chosen}


@pytest.mark.parametrize(
    "chosen", [OF_CAPTIONS, OF_METADATA, OF_PICTURES, OF_VECTORS], ids=["captions", "metadata", "pictures", "vectors"]
)
def test_both_write_the_same_bytes(
    by_spark: Score, made: SmallRoot, tmp_path: Path, chosen: dict[str, dict[str, Any]]
) -> None:
    write_vectors(made, tmp_path)
    files = score_by_both(by_spark, make_recipe(tmp_path, filters=chosen), made.root)
    assert {*files} == {f"scores_{name}/{file}" for name in chosen for file in _list_files()}


def _list_files() -> list[str]:
    return ["_config.json", *(f"{unit}.parquet" for unit in UNITS)]


@pytest.mark.parametrize("name", ["by_uid", "by_url"])
def test_both_join_the_same_bytes(
    by_spark: Score, made: SmallRoot, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for uid, row in made.downloads.items():
        if made.units[uid] == UNITS[1]:  # a unit without a picture
            made.downloads[uid] = dict.fromkeys(row) | {"uid": uid, "status": "dns"}
    small_root.write_downloads(made, UNITS[1])
    recipe = make_recipe(tmp_path, scores=write_own_scores(made, tmp_path, name), filters={"aspect_ratio": {}})
    score_by_both(by_spark, recipe, made.root)
    assert made.root.read_parquet(f"scores_{name}/{UNITS[1]}.parquet").num_rows == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :] and f"scores.{name} covers " in lines[-1]
    table = made.root.read_parquet(f"scores_{name}/{UNITS[0]}.parquet")
    if name == "by_uid":
        marks = table["mark"].to_numpy()
        assert np.isnan(marks).any() and (marks == 0).any() and not np.signbit(marks[marks == 0]).any()
        assert len(lines) == 2 and table.column_names == ["uid", "unit", "found", "mark", "word"]
    else:
        assert len(lines) == 4 and "scores.by_url has 1 of " in lines[0]


def test_a_joined_unit_of_several_pages_is_the_same_by_both(by_spark: Score, made: SmallRoot, tmp_path: Path) -> None:
    """More than a page of rows: where pages end is decided by the rows, and not by how an engine hands them on."""
    count = 30_000
    uids = [f"{number:032x}" for number in range(count)]
    root = create_root(tmp_path / "large")
    samples = pa.table({"uid": uids, "url": [f"http://host.test/{n}" for n in range(count)]})
    root.publish_parquet(f"samples/{UNITS[0]}.parquet", samples)
    root.publish_parquet(f"downloads/{UNITS[0]}.parquet", pa.table({"uid": uids, "status": ["ok"] * count}))
    root.publish_json(f"plans/{small_root.BATCH}.json", made.root.read_json(f"plans/{small_root.BATCH}.json"))
    rows = {"uid": uids[::-1], "mark": [number / 7 for number in range(count)], "word": [f"{n} " * 9 for n in uids]}
    pq.write_table(pa.table(rows), tmp_path / "mine.parquet", row_group_size=4_000)
    files = score_by_both(by_spark, make_recipe(tmp_path, scores={"m": ScoresConfig(paths=("mine.parquet",))}), root)
    assert len(files) == 2


def test_what_one_began_the_other_ends(by_spark: Score, made: SmallRoot, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, filters=OF_PICTURES, scores=write_own_scores(made, tmp_path, "by_url"))
    by_spark(recipe, made.root)
    before, first = read_scores(made.root), Path(made.root.full(f"scores_blur/{UNITS[0]}.parquet"))
    written = first.stat().st_mtime_ns
    gone = (
        f"scores_blur/{UNITS[1]}.parquet",
        f"scores_entropy/{UNITS[0]}.parquet",
        f"scores_by_url/{UNITS[0]}.parquet",
    )
    for run in (score.run_here, by_spark):
        for rel in gone:
            made.root.remove(rel)
        run(recipe, made.root)
        assert read_scores(made.root) == before and first.stat().st_mtime_ns == written


def test_a_sealed_root_is_sealed_alike(by_spark: Score, made: SmallRoot, tmp_path: Path) -> None:
    seal_root(made.root, summed_tables(made.root))
    recipe, ledgers = make_recipe(tmp_path, filters=OF_PICTURES, scores=write_own_scores(made, tmp_path, "by_uid")), []
    for run in (by_spark, score.run_here):
        run(recipe, made.root)
        assert verify(made.root) is None
        ledgers.append({table: dict(made.root.ledger(table)) for table in score_tables(made.root)})
        for table in score_tables(made.root):
            made.root.remove(table)
    assert ledgers[0] == ledgers[1] and all(len(ledger) == len(UNITS) + 1 for ledger in ledgers[0].values())
    assert all(entry.sha256 for ledger in ledgers[1].values() for entry in ledger.values())


def test_both_refuse_with_the_same_sentence(by_spark: Score, made: SmallRoot, tmp_path: Path) -> None:
    uids = sorted(made.samples)
    for name, columns in {
        "twice": {"uid": [*uids, uids[3], uids[1], uids[1]], "mark": [0.5] * len(uids) + [1.0, 2.0, 3.0]},
        "unknown": {"uid": ["b" * 32, "a" * 32], "mark": [0.5, 1.0]},
        "few": {"url": [made.samples[uid]["url"] for uid in uids[::3]], "mark": [0.5] * len(uids[::3])},
    }.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        recipe = make_recipe(tmp_path, scores={name: ScoresConfig(paths=(f"{name}.parquet",))})
        said = [_refusal(run, recipe, made.root) for run in (by_spark, score.run_here)]
        assert said[0] == said[1] and f"[scores.{name}]" in said[0]
    assert not score_tables(made.root) and not made.root.list(".scratch")


def test_a_damaged_picture_ends_both_with_the_same_sentence(by_spark: Score, made: SmallRoot, tmp_path: Path) -> None:
    row = made.downloads[max(made.images)]
    shard = Path(made.root.full(row["shard"]))
    data = bytearray(shard.read_bytes())
    data[row["offset"] + 40] ^= 1
    shard.write_bytes(data)
    recipe = make_recipe(tmp_path, filters={"entropy": {}})
    said = [_refusal(run, recipe, made.root) for run in (by_spark, score.run_here)]
    assert said[0] == said[1] and "are not those that were stored" in said[0]


def _refusal(run: Score, recipe: Recipe, root: Root) -> str:
    with pytest.raises(UserError) as refused:
        run(recipe, root)
    return str(refused.value)


def test_a_task_that_begins_again_scores_what_its_first_attempt_had_not(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {name: filters.build(name, {}) for name in ("aspect_ratio", "caption_length")}
    first = Path(made.root.full(f"scores_aspect_ratio/{UNITS[0]}.parquet"))
    spark_score.score_missing(made.root, UNITS[0], {"aspect_ratio": wanted["aspect_ratio"]})
    stamp = first.stat().st_mtime_ns
    monkeypatch.setattr(spark_score, "is_repeated", lambda: True)
    spark_score.score_missing(made.root, UNITS[0], wanted)
    assert first.stat().st_mtime_ns == stamp and made.root.units("scores_caption_length") == [UNITS[0]]
    spark_score.score_missing(made.root, UNITS[0], wanted)
    monkeypatch.setattr(spark_score, "is_repeated", lambda: False)
    spark_score.score_missing(made.root, UNITS[0], wanted)  # what a stage makes anew stands already at times
    assert first.stat().st_mtime_ns != stamp


def write_recipe(made: SmallRoot, folder: Path) -> Path:
    """A recipe of captions, pictures and scores of one's own as a file, for one process."""
    write_own_scores(made, folder, "by_uid")
    filtered = "[filters.caption_length]\n[filters.entropy]\n"
    (folder / "r.toml").write_text(f"[select]\nthreads = 1\n{filtered}[scores.by_uid]\npaths = ['uid-*.parquet']\n")
    return folder / "r.toml"


def test_score_runs_where_there_is_neither_pyspark_nor_java(made: SmallRoot, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    recipe = str(write_recipe(made, tmp_path))
    call = ["-m", "jobs.cli", "score", "--recipe", recipe, "--root", made.root.path, "--set", "select.threads=2"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": "/nowhere"}
    environment.pop("JAVA_HOME", None)
    ended = subprocess.run(
        [sys.executable, *call], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0 and ended.stderr.splitlines()[-1].startswith("score "), ended.stderr
    assert all(made.root.units(table) == list(UNITS) for table in score_tables(made.root))
    assert score_tables(made.root) == ["scores_by_uid", "scores_caption_length", "scores_entropy"]


@pytest.mark.slow
def test_a_kill_at_any_place_loses_nothing(made: SmallRoot, tmp_path: Path) -> None:
    recipe = write_recipe(made, tmp_path)
    seal_root(made.root, summed_tables(made.root))
    place, last = 0, -signal.SIGKILL
    while last == -signal.SIGKILL and place < 20:
        place += 1
        call = [sys.executable, "-c", KILLED, str(recipe), made.root.path, str(place)]
        last = subprocess.run(call, cwd=REPOSITORY, capture_output=True, check=False).returncode
    assert last == 0 and place > 5 and verify(made.root) is None
    found = read_scores(made.root)
    for table in score_tables(made.root):
        made.root.remove(table)
    score.run_here(make_recipe(tmp_path, **_load(recipe)), made.root)
    assert read_scores(made.root) == found and not made.root.list(".scratch")


def _load(recipe: Path) -> dict[str, Any]:
    from curation.recipe.config import load_recipe

    loaded = load_recipe(str(recipe))
    return {"filters": loaded.filters, "scores": loaded.scores}


def test_columns_on_their_way_have_names_of_their_own(made: SmallRoot, tmp_path: Path) -> None:
    from jobs.scoring.joined_columns import plan_joined_scores

    recipe = make_recipe(tmp_path, scores=write_own_scores(made, tmp_path, "by_uid"))
    assert score_schema(plan_joined_scores(recipe)[0]).names == ["key", "c0", "c1", "c2", "c3"]
