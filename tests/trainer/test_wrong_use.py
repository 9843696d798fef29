"""What a user can get wrong ends in one sentence and status 2, before a process group exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from curation.schema import ROOT_FORMAT
from curation.storage import Root
from tests.support import small_root
from trainer import chain, distill, evaluate, export, launch, models, train, weights


@pytest.fixture(autouse=True)
def _no_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(rank: launch.Rank) -> None:
        raise AssertionError("a process group was started")

    monkeypatch.setattr(launch, "process_group", refuse)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root with 32 packed samples."""
    made = small_root.build(Root(str(tmp_path_factory.mktemp("root"))))
    made.root.publish_json("root.json", {"format": ROOT_FORMAT, "version": "0"})
    small_root.pack(made, sorted(made.images))
    return str(made.root.base)


def said(capsys: pytest.CaptureFixture[str], folder: Path, *overrides: str) -> str:
    """The one sentence that the command ends in."""
    sets = [part for override in (f"folder={folder}", *overrides) for part in ("--set", override)]
    assert train.main(["--config", "debug", *sets]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and not captured.out, captured
    return lines[0]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.name=eva-clip-19b"], "There is no model 'eva-clip-19b'; the models are"),
        (["model.nam=x"], "did you mean name"),
        ([], "There is nothing to train on: name the curated root"),
        (["data.root=/nowhere/at/all"], "/nowhere/at/all is no root"),
        (["train.precision=fp16"], "fp16 needs a GPU"),
        (["train.batch_size=16", "train.micro_batch_size=5"], "16 does not divide into 1 ranks"),
        (["checkpoint.resume=/nowhere/step-1"], "There is no checkpoint /nowhere/step-1"),
    ],
)
def test_wrong_settings(
    overrides: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in said(capsys, tmp_path, *overrides)


def test_no_data_after_the_where(packed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = f"data.root={packed}"
    assert "width" not in said(capsys, tmp_path, root, "train.batch_size=8", "data.where=source = 'nobody'")
    assert "nonsense" in said(capsys, tmp_path, root, "data.where=nonsense > 3")
    few = said(capsys, tmp_path, root, "train.batch_size=48")
    assert "Only 32 samples" in few and "lower train.batch_size" in few
    # A later phase is looked at before the first one starts.
    phases = "phases=[{samples = 8}, {samples = 8, where = \"source = 'nobody'\"}]"
    assert said(capsys, tmp_path, root, "train.batch_size=8", phases)


def test_a_checkpoint_of_another_model(packed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.safetensors"
    with torch.random.fork_rng():
        weights.save_model(models.build("debug", vision={"width": 64, "head_width": 32}), other)
    for key in ("weights", "image_weights"):
        message = said(capsys, tmp_path, f"data.root={packed}", "train.batch_size=8", f"model.{key}={other}")
        assert str(other) in message


def test_only_the_first_rank_of_a_node_speaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert train.main(["--config", "debug", "--set", "model.name=x"]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("rank", ["0", "3"])
@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (
            ValueError("nobody foresaw it\nin two lines"),
            2,
            r"should not have happened \(ValueError: nobody foresaw",
        ),
        (OSError(28, "No space left on device", "/scratch/x"), 2, r"No space left on device \(/scratch/x\)"),
        (MemoryError(), 2, "There is too little memory"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again"),
    ],
)
def test_whatever_ends_a_command_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rank: str,
    raised: BaseException,
    status: int,
    words: str,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)

    def end(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("trainer.command.load_config", end)
    monkeypatch.setattr("trainer.export.export_model", end)
    monkeypatch.setattr("trainer.chain.load_chain", end)
    monkeypatch.setattr("trainer.evaluate.read_settings", end)
    shared = ["--config", "debug"]
    commands = [(train, shared), (distill, shared), (chain, shared), (evaluate, shared), (export, ["a", "b"])]
    for module, arguments in commands:
        assert module.main(arguments) == status
        err = capsys.readouterr().err
        assert re.search(words, err) and err.count("\n") == 1
        if module is not export and rank == "3":
            assert re.match(r"\S+: rank 3: ", err)
        if isinstance(raised, ValueError):
            (trace,) = tmp_path.glob("clip-curation-*.log")
            assert str(trace) in err and "in two lines" in trace.read_text()
            trace.unlink()


def test_a_batch_that_does_not_divide_over_the_ranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert "48 does not divide into 5 ranks" in said(capsys, tmp_path)


def test_the_command_exits_with_the_status() -> None:
    command = [sys.executable, "-m", "trainer.train", "--config", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "There is no configuration nothing" in done.stderr
