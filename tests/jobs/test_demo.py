"""`curate demo` from end to end: every row accounted for, the shards, the training, the queries, a second run."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from pathlib import Path

import pytest
import webdataset
from pyspark.sql import SparkSession

from curation.demo import metadata
from curation.demo.web import Web
from curation.manifest.manifest import Manifest
from curation.schema import Status, uid
from jobs import demo
from tests.support.demo_run import REPOSITORY, DemoRun, contents, curate, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def said(*arguments: object) -> str:
    return subprocess.run(
        curate(*arguments), cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=True
    ).stdout


def test_every_row_ends_as_its_fault_says(demo_run: DemoRun) -> None:
    rows = Manifest(demo_run.root).query("select uid, status from manifest").fetchall()
    found = dict(rows)
    pairs = [(row["URL"], row["TEXT"]) for row in metadata.laion_rows()]
    pairs += [(row["url"], row["text"]) for row in metadata.coyo_rows() + metadata.commonpool_rows()]
    expected = {uid(url, caption): Status.OK for url, caption in pairs if url} | metadata.expected_statuses()
    assert len(rows) == len(found)
    assert found == {key: str(status) for key, status in expected.items()}


def test_all_metadata_rows_are_accounted_for(demo_run: DemoRun) -> None:
    num_rows = len(metadata.laion_rows()) + len(metadata.coyo_rows()) + len(metadata.commonpool_rows())
    status = said("status", demo_run.folder)
    assert re.search(rf"^metadata +{num_rows} +100.00 %$", status, re.MULTILINE)
    assert re.search(r"^  - repeated +10 ", status, re.MULTILINE)
    assert re.search(r"^  - no_url +2 ", status, re.MULTILINE)
    for stage in ("samples", "pictures", "kept", "packed"):
        assert re.search(rf"^{stage} +\d+ ", status, re.MULTILINE)
    for rule in ("deduplicated", "words", "english", "safe", "no_watermark"):
        assert int(re.search(rf"^  - {rule} +(\d+) ", status, re.MULTILINE)[1]) > 0  # type: ignore[index]
    assert "accounted for once" in said("verify", demo_run.folder)


def test_copies_are_removed_whatever_was_done_to_them(demo_run: DemoRun) -> None:
    copies = Manifest(demo_run.root).query(
        "select split_part(url, '/', 5), count(*), count(duplicate_of) from manifest "
        "where url like '%/copies/%' group by 1 order by 1"
    )
    found = {kind: (total, removed) for kind, total, removed in copies.fetchall()}
    # A copy is as likely kept as its original: one of the two goes. Crops may stay.
    tiers = Manifest(demo_run.root).query("select distinct tier from duplicates").fetchall()
    assert {tier for (tier,) in tiers} == {"exact", "perceptual", "embedding"}
    pairs = Manifest(demo_run.root).query(
        "select a.url, b.url from duplicates d join samples a using (uid) join samples b on b.uid = d.kept_uid"
    )
    together = {frozenset(url.rpartition("/")[2] for url in pair) for pair in pairs.fetchall()}
    assert set(found) == {"exact", "recompressed", "shrunk", "cropped"}
    assert sum(len(names) == 1 for names in together) >= 30  # of 40 copied pictures


def test_webdataset_gives_every_packed_picture_once(demo_run: DemoRun) -> None:
    manifest = Manifest(demo_run.root)
    packed = dict(manifest.query("select uid, coalesce(caption, '') from train_index").fetchall())
    shards = [
        demo_run.folder / shard for (shard,) in manifest.query("select distinct shard from train_index").fetchall()
    ]
    samples = list(webdataset.WebDataset([str(path) for path in sorted(shards)], shardshuffle=False).decode("pil"))
    found = {json.dumps(sample["json"].get("uid")).strip('"'): sample for sample in samples}
    assert len(samples) == len(packed) and set(found) == set(packed)
    assert all(sample["txt"] == packed[key] for key, sample in found.items())
    assert all(max(sample["jpg"].size) <= 256 and sample["jpg"].mode == "RGB" for sample in samples)
    sizes = [json.loads(path.read_bytes()) for path in {shard.parent / "sizes.json" for shard in shards}]
    assert sum(sizes[0].values()) == len(packed)


def test_the_manifest_has_its_views(demo_run: DemoRun) -> None:
    manifest = Manifest(demo_run.root)
    for view in ("samples", "downloads", "duplicates", "scores", "selection", "train_index", "manifest"):
        assert manifest.query(f"select count(*) from {view}").fetchall()[0][0] > 0
    wide = set(manifest.columns("manifest"))
    assert {"url", "status", "duplicate_of", "language", "unsafe_score", "kept", "reason", "train_shard"} <= wide


def test_training_learned_something(demo_run: DemoRun) -> None:
    assert re.search(r"step \d+ .*loss \d+\.\d+ .*samples/s", demo_run.output)
    values = {name: float(value) for name, value in re.findall(r"^  pairs/crop/(\S+@1) +(\S+)$", demo_run.output, re.M)}
    for direction in ("image_to_text", "text_to_image"):
        assert values[f"{direction}_recall@1"] > 4 * values[f"{direction}_chance@1"] > 0
    (runs,) = (demo_run.folder / "training").iterdir()
    assert {"checkpoints", "metrics.jsonl", "model.safetensors"} <= {path.name for path in runs.iterdir()}


def test_the_output_is_clean(demo_run: DemoRun) -> None:
    """No traceback, no error; every stage says how long it took."""
    assert not re.search(r"Traceback|Error|Exception", demo_run.output)
    assert re.findall(r"^(\w+) +done in", demo_run.output, re.M) == [
        "ingest", "download", "embed", "dedupe", "score", "select", "pack",
    ]  # fmt: skip


def test_the_queries_work_when_pasted(demo_run: DemoRun) -> None:
    lines = demo_run.output.partition("Five queries worth trying:\n")[2].splitlines()
    assert len(lines) == 5
    for line in lines:
        command = f"{line.strip()} --format csv"
        done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(list(csv.reader(io.StringIO(done.stdout)))) > 1
    shown = said("query", demo_run.folder, "select source, count(*) as n from samples group by 1 order by 1")
    assert [line.split()[0] for line in shown.splitlines()[2:]] == ["commonpool", "coyo", "laion"]


def test_the_places_named_at_the_end_exist(demo_run: DemoRun) -> None:
    named = re.findall(r"^(?:metadata|train shards) +(\S+)$", demo_run.output, re.MULTILINE)
    assert len(named) == 2 and all(Path(place).is_dir() for place in named)


def test_a_second_run_does_nothing_twice(
    demo_run: DemoRun, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, so that what its web was asked can be seen. Nothing under the root is touched, logs included."""
    webs: list[Web] = []

    class Watched(Web):
        def __enter__(self) -> Web:
            webs.append(self)
            return super().__enter__()

    def state() -> dict[str, tuple[int, int]]:
        paths = (path for path in demo_run.folder.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    monkeypatch.setattr(demo, "Web", Watched)
    monkeypatch.chdir(REPOSITORY)
    before, bytes_before = state(), contents(demo_run.folder)
    assert demo.demo(str(demo_run.folder)) == 0
    assert [web.num_requests for web in webs] == [0]
    assert (state(), contents(demo_run.folder)) == (before, bytes_before)
    queries = demo_run.output.partition("Five queries")[2]
    assert capsys.readouterr().out.endswith(queries)
