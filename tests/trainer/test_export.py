"""The export command: any layout in, any out, and what cannot be exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.trainer.tower_styles import randomise
from trainer import export, layouts, models, weights
from trainer.models.mim import MaskedImageModel


@pytest.fixture
def debug(tmp_path: Path) -> Path:
    """A debug model on random weights, in our layout."""
    model = models.build("debug")
    randomise(model)
    weights.save_model(model, tmp_path / "debug.safetensors")
    return tmp_path / "debug.safetensors"


@pytest.mark.parametrize("layout", [name for name in layouts.LAYOUTS if name not in ("mim", "timm")])
def test_out_and_back_is_the_same(layout: str, debug: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, back = tmp_path / "there.safetensors", tmp_path / "new" / "back.safetensors"
    assert export.main([str(debug), str(there), "--layout", layout]) == 0
    assert f"{layout} layout" in capsys.readouterr().out
    assert export.main([str(there), str(back), "--name", "debug"]) == 0
    expected, found = load_file(debug), load_file(back)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_half_precision_halves_the_file(debug: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    assert export.main([str(debug), str(half), "--dtype", "bf16"]) == 0
    assert {tensor.dtype for tensor in load_file(half).values()} == {torch.bfloat16}
    assert half.stat().st_size < 0.52 * debug.stat().st_size


def test_a_pre_trained_tower_fits_layouts_of_towers_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = MaskedImageModel(models.config("debug"), teacher_dim=24)
    randomise(student)
    monkeypatch.setattr(export, "read_source", lambda *_: (dict(student.state_dict()), student.config))
    out = tmp_path / "out.safetensors"
    assert export.main(["step", str(out)]) == 0 and "mim layout" in capsys.readouterr().out
    assert {"mask_token", "lm_head.weight"} <= set(load_file(out))
    assert export.main(["step", str(out), "--layout", "timm"]) == 0
    assert not {"mask_token", "lm_head.weight"} & set(load_file(out))
    clip = models.build("debug")
    weights.fill_towers(clip, image=out)
    assert torch.equal(clip.visual.norm.weight, student.visual.norm.weight)
    capsys.readouterr()
    assert export.main(["step", str(out), "--layout", "huggingface"]) == 2
    assert "which huggingface has no place for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{tmp}/absent", "{tmp}/x"], "There is no checkpoint"),
        (["{tmp}", "{tmp}/x"], "holds none of"),
        (["{debug}", "{tmp}/x", "--name", "eva02-b-16"], "of another model"),
        (["{debug}", "{tmp}/x", "--name", "eva"], "There is no model 'eva'"),
    ],
)
def test_wrong_use(
    arguments: list[str], says: str, debug: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([part.format(tmp=tmp_path, debug=debug) for part in arguments]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
