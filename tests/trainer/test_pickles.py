"""What stands beside tensors in a pickle: plain values are passed over, everything else is named and not made."""

from __future__ import annotations

import argparse
import datetime
import decimal
import os
import pathlib
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curation.errors import UserError
from trainer.pickles import StandIn, read_pickle

BESIDE = {
    "a numpy number": np.float64(0.5),
    "a numpy type": np.float32,
    "numpy's random state": np.random.RandomState(0).get_state(),
    "a path in arguments": argparse.Namespace(out=pathlib.PosixPath("/x"), lr=1e-3),
    "a date": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "a decimal": decimal.Decimal("0.5"),
}


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (os.environ["BOMB_PATH"],))


class _Filler:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (bytearray, (1 << 44,))


@pytest.mark.parametrize("what", BESIDE)
@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_are_read_whatever_plain_value_lies_beside_them(what: str, is_zip: bool, tmp_path: Path) -> None:
    state = {"model": {"w": torch.arange(3.0)}, "beside": BESIDE[what], "epoch": 3}
    torch.save(state, tmp_path / "c.pt", _use_new_zipfile_serialization=is_zip)
    found = read_pickle(tmp_path / "c.pt")
    assert torch.equal(found["model"]["w"], torch.arange(3.0)) and found["epoch"] == 3
    assert found["beside"] is StandIn or isinstance(found["beside"], StandIn | tuple), "the object itself was made"


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("beside", "name"),
    [(_Bomb(), "posix.mkdir"), (random.Random(), "random.Random"), (_Filler(), "builtins.bytearray")],
)
def test_any_other_object_is_named_and_not_made(
    beside: object, name: str, is_zip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOMB_PATH", str(tmp_path / "ran"))
    torch.save({"w": torch.ones(1), "beside": beside}, tmp_path / "c.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UserError) as caught:
        read_pickle(tmp_path / "c.pt")
    said = str(caught.value)
    assert f"c.pt holds the object {name}, which" in said and said.isprintable()
    assert not (tmp_path / "ran").exists()


def test_what_the_caller_lists_is_made(tmp_path: Path) -> None:
    torch.save({"beside": random.Random(7)}, tmp_path / "c.pt")

    class Record(StandIn):
        """Whatever the file says."""

    found = read_pickle(tmp_path / "c.pt", {"random.Random": Record})
    assert type(found["beside"]) is Record


def test_compressed_members_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "c.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data/1", bytes(1 << 20))
    with pytest.raises(UserError, match="c/data/1 compressed"):
        read_pickle(tmp_path / "c.pt")
