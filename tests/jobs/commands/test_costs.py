"""`curate plan`: what it prints, what its JSON holds, and the sentence for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.stages import STAGES
from tests.support.cluster_file import CLUSTER
from tests.support.command import Command

GPUS = '[gpus]\ncount = 64\nkind = "H100"\nprice_per_hour = 2.5\n[training]\nconfig = "eva02-b-16"\n'


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    file = tmp_path / "cluster.toml"
    file.write_text(CLUSTER + GPUS)
    return file


def test_the_table_has_every_stage_and_the_sources_of_every_figure(command: Command, cluster: Path) -> None:
    assert command("plan", "--rows", "2.3e9", "--recipe", "laion-2b-en", "--cluster", cluster) == 0
    assert command.out.startswith("2,300,000,000 rows on 10 nodes × 16 cores, 64 × H100;")
    lines = command.out.splitlines()
    first = {line.split()[0] for line in lines if line}
    assert {*STAGES, "train", "all"} <= first
    assert "dedupe needs" in command.out and "benchmarks/results/download.md" in command.out
    assert "came = 0.75: assumed" in command.out and "dry run of eva02-b-16" in command.out


def test_json_has_the_same_in_one_line_and_sums_up(command: Command, cluster: Path) -> None:
    assert command("plan", "--rows", "1e6", "--recipe", "laion-2b-en", "--cluster", cluster, "--json") == 0
    (line,) = command.out.splitlines()
    found = json.loads(line)
    assert [cost["stage"] for cost in found["stages"]] == [*STAGES, "train"]
    for name in ("hours", "money", "num_bytes"):
        assert found["total"][name] == pytest.approx(sum(cost[name] for cost in found["stages"]))
    assert all(slope["source"] for cost in found["stages"] for slope in cost["slopes"])
    assert found["rows"] == 1_000_000 and "waits for one host" in found["notes"][0]


def test_a_model_that_does_not_fit_is_said(command: Command, cluster: Path) -> None:
    cluster.write_text(cluster.read_text() + 'set = ["train.batch_size=640000"]\n')
    cluster.write_text(cluster.read_text().replace("eva02-b-16", "eva02-e-14-plus"))
    assert command("plan", "--rows", "1e6", "--recipe", "laion-2b-en", "--cluster", cluster) == 0
    assert "eva02-e-14-plus does not fit into 64 × H100" in command.out


@pytest.mark.parametrize("rows", ["0", "-5", "nan", "inf", "1.5", "many", "1e30"])
def test_rows_that_are_no_count_are_refused(command: Command, cluster: Path, rows: str) -> None:
    said = command.refuses("plan", f"--rows={rows}", "--recipe", "laion-2b-en", "--cluster", cluster)
    assert said.startswith("--rows must be a whole number")


def test_an_unknown_gpu_recipe_or_configuration_is_one_sentence(command: Command, cluster: Path) -> None:
    text = cluster.read_text()
    common = ("plan", "--rows", "1e6", "--cluster", cluster, "--recipe")
    cluster.write_text(text.replace("H100", "H1000"))
    assert "known are A100" in command.refuses(*common, "laion-2b-en")
    cluster.write_text(text.replace("eva02-b-16", "eva02-b-17"))
    assert "eva02-b-17" in command.refuses(*common, "laion-2b-en")
    cluster.write_text(text)
    assert "There is no recipe" in command.refuses(*common, "laion-3b")


def test_it_needs_neither_torch_nor_spark(cluster: Path) -> None:
    call = (
        "import sys; from jobs.cli import _act; "
        f"_act(['plan', '--rows', '1e6', '--recipe', 'laion-2b-en', '--cluster', {str(cluster)!r}, '--json']); "
        "sys.exit(' '.join({'torch', 'pyspark', 'deepspeed'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
