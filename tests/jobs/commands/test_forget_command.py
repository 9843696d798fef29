"""`curate forget` as it is typed: what it says, its exit status, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curation.storage import Root
from jobs.cli import main
from tests.support import removal
from tests.support.small_root import SmallRoot
from trainer.checkpoint import META


@pytest.fixture
def made(tmp_path: Path) -> SmallRoot:
    """A sealed root with every stage behind it."""
    return removal.build(tmp_path / "root")


def run(*words: object) -> int:
    """The exit status of `curate forget`."""
    with pytest.raises(SystemExit) as ended:
        main(["forget", *map(str, words)])
    return int(ended.value.code or 0)


def test_a_dry_run_says_what_would_go_and_writes_nothing(
    made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = removal.contents(tmp_path / "root")
    assert run(made.root.base, "--host", "host2.test", "--host", "none.test", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "8 rows in 2 units to be forgotten" in said and "none.test matches no row now" in said
    assert removal.contents(tmp_path / "root") == before


def test_a_request_is_answered_with_a_proof_and_asked_again_with_a_sentence(
    made: SmallRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = sorted(made.samples)[0]
    assert run(made.root.base, "--uid", uid, "--reason", "letter of May") == 0
    said = capsys.readouterr().out
    assert "1 row in 1 unit forgotten" in said and "no picture, URL or caption of theirs is left" in said
    assert run(made.root.base, "--uid", uid) == 0
    assert "nothing was written" in capsys.readouterr().out
    (tombstone,) = Root(made.root.base).read_parquet("forgotten/tombstones.parquet").to_pylist()
    assert tombstone["kind"] == "uid" and tombstone["reason"] == "letter of May"


def test_what_is_left_in_the_root_is_named_and_ends_with_status_1(
    made: SmallRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(iter(made.samples.values()))
    made.root.publish("inputs/urls.txt", row["url"].encode())
    assert run(made.root.base, "--url", row["url"]) == 1
    assert "inputs/urls.txt" in capsys.readouterr().err
    made.root.remove("inputs/urls.txt")
    assert run(made.root.base) == 0
    assert "is left" in capsys.readouterr().out
    assert run(made.root.base) == 2
    assert "Nothing is named to be forgotten, and nothing was interrupted" in capsys.readouterr().err


def test_programs_get_one_line_of_json(made: SmallRoot, capsys: pytest.CaptureFixture[str]) -> None:
    uid = sorted(made.images)[0]
    assert run(made.root.base, "--uid", uid, "--uid", "f" * 32, "--json") == 0
    (said,) = json.loads(capsys.readouterr().out)["removals"]
    assert said["num_rows"] == 1 and said["unknown"] == ["f" * 32] and said["proof"]["holds"]


def test_checkpoints_that_took_a_step_are_named(
    made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = {"model": "debug", "image_size": 32, "optimizer": "adamw", "precision": "fp32", "zero_stage": 0}
    progress |= {"world_size": 1, "batch_size": 4, "seed": 0, "phase": 0}
    for step in (0, 40):
        folder = tmp_path / "runs" / "a" / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / META).write_text(json.dumps(progress | {"step": step}))
    (tmp_path / "runs" / "b" / "step-00000007").mkdir(parents=True)
    (tmp_path / "runs" / "b" / "step-00000007" / META).write_text("{")
    assert run(made.root.base, "--uid", sorted(made.samples)[0], "--runs", tmp_path / "runs") == 0
    said = capsys.readouterr().out
    assert (
        "step-00000040 (debug, step 40) may have seen them" in said and "00000007 (its record cannot be read)" in said
    )
    assert "step-00000000" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--uid", "12"], "--uid '12' is not 32 hexadecimal digits."),
        (["--dry-run"], "--dry-run plans requests"),
        (["--url", "http://host1.test/1.jpg", "--reason", "see http://host1.test/1.jpg"], "--reason names what"),
        (["--uid", "0" * 32, "--runs", "none"], "--runs: there is no folder none."),
    ],
)
def test_wrong_words_are_one_sentence_before_anything_is_written(
    made: SmallRoot, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = removal.contents(tmp_path / "root")
    assert run(made.root.base, *words) == 2
    assert said in capsys.readouterr().err and removal.contents(tmp_path / "root") == before


def test_what_is_no_root_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none", "--uid", "0" * 32) == 2
    assert "is no root" in capsys.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.slow
def test_processes_that_are_killed_and_the_command_again_leave_nothing(tmp_path: Path) -> None:
    """Twelve kills at spread-out moments of one removal after the other; each is finished by the command alone."""
    made = removal.build(tmp_path / "root")
    uids = sorted(made.samples)
    command = [sys.executable, "-m", "jobs.cli", "forget", str(tmp_path / "root")]
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    for number in range(12):
        mine = uids[3 * number : 3 * number + 3]
        options = [word for uid in mine for word in ("--uid", uid)]
        started = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        waited = 0
        while started.poll() is None and waited <= number:
            waited += (tmp_path / "root" / "forget").is_dir() and any((tmp_path / "root" / "forget").iterdir())
            time.sleep(0.002)
        started.send_signal(signal.SIGKILL)
        started.wait()
        done = subprocess.run([*command, *options], check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert removal.find_left(tmp_path / "root", made, mine) == []
    assert subprocess.run([*command[:3], "verify", "--all", command[4]], check=False).returncode == 0


def test_a_root_is_moved_by_one_command(made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["move", made.root.base, str(tmp_path / "new")])
    assert not ended.value.code and "which stays" in capsys.readouterr().out
    assert removal.contents(tmp_path / "new") == removal.contents(tmp_path / "root")


def test_a_sample_is_made_by_one_command(made: SmallRoot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sample", made.root.base, "--share", "0.4", "--root", str(tmp_path / "sample")])
    assert not ended.value.code
    rows = sum(
        Root(tmp_path / "sample").read_parquet(f"samples/{u}.parquet").num_rows for u in made.root.units("samples")
    )
    assert f"has {rows} rows of {made.root.base}" in capsys.readouterr().out
