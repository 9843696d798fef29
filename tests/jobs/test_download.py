"""The download stage: rounds, sharing of hosts, resuming, the same bytes twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curation.download import progress
from curation.download.progress import summarise
from curation.download.rounds import count_due_rows
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.plan import Lane
from curation.recipe.config import DownloadConfig, load_recipe
from curation.storage import Root
from curation.sums.recorder import sealing
from curation.verify import verify
from jobs import download, ingest, score, selection
from jobs.cli import main
from jobs.spark import tasks
from tests.jobs.test_ingest import snapshot
from tests.support.small_web import pictures, recipe, serve

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def rows(root: Root) -> dict[str, dict[str, Any]]:
    units = root.units("downloads")
    return {r["uid"]: r for u in units for r in root.read_parquet(f"downloads/{u}.parquet").to_pylist()}


def tables(root: Root) -> dict[str, bytes]:
    """What two runs must share: everything but logs, and the recorded settings, which name the port."""
    return {k: v for k, v in snapshot(root).items() if not k.startswith(("logs/", ".scratch"))}


def moody(host: str, path: str, asked: int) -> tuple[int, bytes]:
    """Every seventh picture is refused at first, every fourteenth for long."""
    number = int(path.strip("/").partition(".")[0] or 0)
    if number % 7 == 0 and asked < (2 if number % 14 == 0 else 1):
        return 503, b""
    return pictures(host, path, asked)


def test_rounds_try_again_only_what_failed_for_the_moment(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root(tmp_path / "root")
    with serve(moody) as (port, asked):
        file = recipe(tmp_path, port, 90)
        first = load_recipe(file, ["download.rounds=0"])
        ingest.run_here(first, root)
        download.run(spark, first, root)
        before = rows(root)
        score.run(spark, first, root)
        selection.run(spark, first, root)
        early = root.current("selection")
        assert Counter(r["status"] for r in before.values())["http_5xx"] == 13
        assert {r["fetch_round"] for r in before.values()} == {0}
        requests = dict(asked)
        download.run(spark, first, root)
        assert dict(asked) == requests  # no round, no request

        second = load_recipe(file, ["download.rounds=1"])
        download.run(spark, second, root)
        after = rows(root)
        tried = {key[1] for key in asked if asked[key] > requests.get(key, 0)} - {"/robots.txt"}
        assert tried == {f"/{i}.jpg" for i in range(0, 90, 7)}
        again = {uid for uid, r in before.items() if r["status"] == "http_5xx"}
        assert {uid: after[uid] for uid in after if uid not in again} == {
            uid: before[uid] for uid in before if uid not in again
        }
        assert Counter(after[uid]["status"] for uid in again) == {"ok": 5, "http_404": 1, "http_5xx": 7}
        assert {after[uid]["fetch_round"] for uid in again} == {1}
        due = download.find_due(spark, root, 2)
        with monkeypatch.context() as patched:
            patched.setattr(download, "MAX_READS_HERE", 0)
            assert sum(due.values()) == 7 and download.find_due(spark, root, 2) == due, "tasks read the same"
        assert verify(root) is not None  # the selection is of before
        score.run(spark, second, root)
        selection.run(spark, second, root)
        assert root.current("selection") != early
        assert verify(root) is None

        requests = dict(asked)
        download.run(spark, second, root)
        assert dict(asked) == requests  # the round is over: the table says so
        download.run(spark, load_recipe(file, ["download.rounds=2"]), root)
    statuses = Counter(r["status"] for r in rows(root).values())
    assert statuses == {"ok": 81, "http_404": 9}
    assert Manifest(root).query("select count(*) from manifest").fetchall() == [(90,)]


def test_two_runs_give_the_same_bytes(spark: SparkSession, tmp_path: Path) -> None:
    found = []
    with serve(pictures) as (port, _):
        for name in ("one", "two"):
            made = load_recipe(recipe(tmp_path / "meta", port, 60))
            root = Root(tmp_path / name)
            ingest.run_here(made, root)
            download.run(spark, made, root)
            found.append(tables(root))
    assert found[0] == found[1]
    assert sum(name.startswith("raw/") for name in found[0]) == len(root.units("samples"))


def test_a_round_that_died_before_its_row_file_stands_is_done_again(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of the round may stand and derived tables be gone: the old row file still tells the truth."""
    from curation.download import unit as unit_download

    root, file = Root(tmp_path / "root"), None
    with serve(moody) as (port, _):
        file = recipe(tmp_path, port, 60)
        config = load_recipe(file, ["download.rounds=0"])
        ingest.run_here(config, root)
        download.run(spark, config, root)
        before = rows(root)
        unit = next(u for u in root.units("downloads") if unit_is_due(root, u))

        def die(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Root, "publish_parquet", die)
            with pytest.raises(OSError, match="No space left"):
                unit_download.download_unit(root, unit, unit_download.resolve_opt_out_paths(config), 1)
        assert rows(root) == before and verify(root) is None
        with sealing(root, ["downloads"]) as recording:
            unit_download.download_unit(recording, unit, unit_download.resolve_opt_out_paths(config), 1)
        assert not unit_is_due(root, unit) and verify(root) is None
        assert not list(root.scratch().glob("*.journal"))


def unit_is_due(root: Root, unit: str) -> bool:
    return bool(count_due_rows(root, [unit], 1))


def test_very_many_units_share_tasks_and_the_lanes_of_a_large_domain_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [Lane(units=("a", "b"), share=2), Lane(units=("c",), share=2), *(Lane(units=(f"u{n}",)) for n in range(9))]
    rows = dict.fromkeys("abc", 10) | {f"u{n}": 10 for n in range(9)}
    assert download.cut_lanes(lanes, rows) == [[lane] for lane in lanes]
    monkeypatch.setattr(tasks, "MAX_TASKS", 3)
    assert download.cut_lanes(lanes, rows) == [[lanes[0]], [lanes[1]], lanes[2:5], lanes[5:8], lanes[8:]]


def test_lanes_of_a_large_domain_share_what_a_host_may_bear() -> None:
    config = DownloadConfig(max_per_host=8, host_interval_s=0.5)
    half = download.share_limits(config, 2)
    assert (half.max_per_host, half.host_interval_s) == (4, 1.0)
    assert download.share_limits(config, 1) == config
    assert download.share_limits(DownloadConfig(max_per_host=1), 1).max_per_host == 1


def test_the_bar_names_the_share_that_came_and_the_chief_reasons() -> None:
    counts = {"ok": 70, "http_404": 15, "dns": 9, "timeout": 5, "tls": 1}
    assert summarise(counts) == "ok 70 % · http_404 15 %, dns 9 %, timeout 5 %"
    assert summarise({}) == "" and summarise({"ok": 3}) == "ok 100 %"


def test_no_plan_is_one_sentence(spark: SparkSession, root: Root, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no finished plan: run `curate ingest` first"):
        download.run(spark, load_recipe(recipe(tmp_path, 1, 3)), root)


def test_a_root_of_an_earlier_layout_is_one_sentence(
    root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Layout 1 had no `fetch_round`, without which no round knows what is due."""
    root.publish_json("root.json", {"format": 1, "version": "0.1.0"})
    for command in (
        ["download", "--recipe", str(recipe(tmp_path, 1, 3)), "--root", root.base],
        ["adopt", str(tmp_path), "--root", root.base],
        ["status", root.base],
    ):
        (tmp_path / "00000.tar").write_bytes(b"")
        with pytest.raises(SystemExit) as ended:
            main(command)
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1
        assert "has layout 1, this version" in error and "or a new root" in error


def test_reading_the_logs_of_very_many_units_takes_a_small_part_of_the_time(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, reads = 0.0, 0

    def read(*_: object) -> list[dict[str, Any]]:
        nonlocal now, reads
        now, reads = now + 6.0, reads + 1  # seconds for a folder of 230,000 logs on a store
        return []

    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr(progress, "read_logs", read)
    show = progress.DownloadBar(root, 0, {"u": 3})
    with show:
        while now < 1_000.0:
            show()
            now += 0.5
    assert 6.0 * (reads - 1) <= 0.06 * now  # the last one is when all has ended
