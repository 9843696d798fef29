"""TorchScript archives: the tensors of their modules, by name, and nothing of their code."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curation.errors import UserError
from tests.support.trainer.layout_states import baai_state, random_model
from tests.support.trainer.tower_styles import shrunk
from trainer import torchscript, weights
from trainer.models.clip import Clip
from trainer.weight_files import WeightFile

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3).half())
        self.names, self.scale, self.sizes = ["a", "b"], 0.5, [1, 2]

    def forward(self, rows: Tensor) -> Tensor:
        return rows * self.scale


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Block(), _Block()])
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        self.register_buffer("counts", torch.arange(12).reshape(3, 4).t())

    def forward(self, rows: Tensor) -> Tensor:
        return rows * self.logit_scale


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    torch.jit.script(_Model()).save(str(tmp_path / "model.pt"))
    return tmp_path / "model.pt"


def test_tensors_have_the_names_and_values_of_the_state(archive: Path) -> None:
    wanted = torch.jit.load(str(archive)).state_dict()
    found = {name: torchscript.read_tensor(archive, s) for name, s in torchscript.list_tensors(archive).items()}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in found)


class _Holder(nn.Module):
    """The text tower of a CLIP at the root, as OpenAI's archives have it."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in state.items():
            *modules, leaf = name.split(".")
            place: nn.Module = self
            for module in modules:
                if not hasattr(place, module):
                    place.add_module(module, nn.Module())
                place = getattr(place, module)
            place.register_parameter(leaf, nn.Parameter(tensor))

    def forward(self, rows: Tensor) -> Tensor:
        return rows


def test_a_text_tower_starts_from_an_archive(tmp_path: Path) -> None:
    teacher = random_model(shrunk("eva02-b-16"))
    state = {name.removeprefix("text."): t for name, t in baai_state(teacher).items() if not name.startswith("visual")}
    torch.jit.trace(_Holder(state), torch.ones(1)).save(str(tmp_path / "clip.pt"))
    model = Clip(shrunk("eva02-b-16"))
    weights.fill_towers(model, text=tmp_path / "clip.pt")
    for name, tensor in teacher.text.state_dict().items():
        assert torch.equal(model.text.state_dict()[name], tensor)


def replace_member(archive: Path, suffix: str, content: bytes | None) -> None:
    """Write the archive again with another member, or without it."""
    with zipfile.ZipFile(archive) as before:
        members = {name: before.read(name) for name in before.namelist()}
    with zipfile.ZipFile(archive, "w") as after:
        for name, data in members.items():
            if not name.endswith(suffix):
                after.writestr(name, data)
            elif content is not None:
                after.writestr(name, content)


def _storage(numel: int) -> bytes:
    return b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK" + bytes([numel]) + b"tQ"


_HUGE = b"X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(" + _storage(6) + b"K\0(J\0\0\0\x7ftK\0\x85\x89NtR"
"""A tensor `w` of 2 billion elements in a storage of six."""


def _module(attributes: bytes) -> bytes:
    return b"\x80\x02c__torch__\nM\n)\x81}(" + attributes + b"ub."


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps(print, protocol=2), "it holds the object [_a-z]*.print"),
        (_module(_HUGE), "larger than what is stored"),
        (b"\x80\x02K\x01r\xff\xff\xff\x7f.", "no"),
        (b"\x80\x02}}b.", "attributes of what is no module"),
        (b"", "."),
    ],
)
def test_a_hostile_list_of_modules_is_one_sentence(content: bytes, says: str, archive: Path) -> None:
    replace_member(archive, "/data.pkl", content)
    with pytest.raises(UserError, match=says) as caught:
        WeightFile(archive)
    assert str(caught.value).isprintable() and "model.pt" in str(caught.value)


def test_a_missing_member_is_one_sentence(archive: Path) -> None:
    found: dict[str, Any] = torchscript.list_tensors(archive)
    replace_member(archive, found["counts"].member, None)
    with pytest.raises(UserError, match="counts is larger than what is stored"):
        WeightFile(archive)
    with pytest.raises(UserError, match="cannot be read"):
        torchscript.read_tensor(archive, found["counts"])
