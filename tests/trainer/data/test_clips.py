"""Clips of frames in tars: order, resuming, crops that are alike, and what is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curation.errors import UserError
from tests.support import small_root
from tests.support.trainer import toy, video_sets
from tests.support.trainer.ranks import launch
from trainer.data import TrainTransform
from trainer.data.clips import ClipLoader, choose_frames, list_clips
from trainer.data.tokenizer import tokenize


def write_clips(folder: Path, count: int = 7, *, damage: str = "") -> Path:
    """Clips of ten frames each, in two tars; `damage` is a member to leave out, or KEY=broken."""
    folder.mkdir(parents=True)
    for tar, numbers in enumerate((range(count // 2), range(count // 2, count))):
        members: dict[str, bytes] = {}
        for number in numbers:
            for at, frame in enumerate(video_sets.make_frames(number)):
                broken = damage == f"c{number}=broken"
                members[f"c{number}.{at:02d}.png"] = b"none" if broken else video_sets.encode_png(frame)
            members[f"c{number}.txt"] = f"clip number {number}".encode()
        members.pop(damage, None)
        (folder / f"{tar}.tar").write_bytes(small_root.tar(members)[0])
    return folder


def train(folder: Path, clips: Path, num_ranks: int, patch_drop: float) -> dict[int, float]:
    """The losses of two steps on clips, by the command."""
    phases = f"phases=[{{samples = 8, clips = '{clips}', frames = 3, patch_drop = {patch_drop}}}]"
    sets = [phases, "train.batch_size=4", "train.micro_batch_size=2", "data.num_workers=2"]
    command = [sys.executable, "-m", "trainer.train", "--config", str(toy.recipe(folder))]
    launch(num_ranks, [*command, *(part for override in sets for part in ("--set", override))])
    return toy.losses(folder)


@pytest.mark.slow
def test_training_on_clips_has_the_same_losses_on_one_and_two_ranks(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips", 8)  # no step crosses the end of an epoch
    alone, both = (train(tmp_path / str(ranks), clips, ranks, 0.0) for ranks in (1, 2))
    assert sorted(alone) == [1, 2] and both == pytest.approx(alone, abs=1e-4)
    dropped = train(tmp_path / "dropped", clips, 1, 0.5)
    assert sorted(dropped) == [1, 2] and dropped != pytest.approx(alone, abs=1e-4)


def make_loader(folder: Path, batch_size: int, **more: Any) -> ClipLoader:
    return ClipLoader(
        folder=folder, frames=4, batch_size=batch_size, transform=TrainTransform(32), tokenizer=tokenize, **more
    )


def test_an_epoch_has_every_clip_once_and_the_next_has_another_order(tmp_path: Path) -> None:
    loader = make_loader(write_clips(tmp_path / "clips"), 7)
    first, second = (next(iter(loader)) for loader in (loader, make_loader(tmp_path / "clips", 7, epoch=1)))
    assert first["pixels"].shape == (7, 4, 3, 32, 32) and first["tokens"].shape == (7, 77)
    assert sorted(first["uid"]) == sorted(second["uid"]) == [f"c{number}" for number in range(7)]
    assert first["uid"] != second["uid"]
    for place, key in enumerate(first["uid"]):
        assert torch.equal(first["tokens"][place], tokenize([f"clip number {key[1:]}"])[0])
        brightness = first["pixels"][place].mean((1, 2, 3))
        assert (brightness.diff() > 0).all(), "frames are in their order and cropped alike"


def test_two_ranks_share_the_batches_of_one(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", 8)
    alone = list(make_loader(folder, 4))
    shares = [list(make_loader(folder, 2, rank=rank, world_size=2)) for rank in range(2)]
    for whole, one, other in zip(alone, *shares, strict=True):
        assert whole["uid"] == one["uid"] + other["uid"]
        assert torch.equal(whole["pixels"], torch.cat((one["pixels"], other["pixels"])))


def test_a_loader_goes_on_where_it_stood_and_refuses_another_order(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips")
    loader = make_loader(folder, 2)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    expected = next(batches)
    again = make_loader(folder, 2)
    again.load_state_dict(state)
    found = next(iter(again))
    assert found["uid"] == expected["uid"] and torch.equal(found["pixels"], expected["pixels"])
    last = list(make_loader(folder, 2))[-1]
    assert last["padding"] == 1 and len(last["uid"]) == 2
    with pytest.raises(UserError, match=r"another order of samples \(seed differ\)"):
        make_loader(folder, 2, seed=1).load_state_dict(state)
    of_pictures = {**state, "order": {"seed": 0, "selection": "x"}}
    with pytest.raises(UserError, match=r"\(clips, frames, selection differ\)"):
        make_loader(folder, 2).load_state_dict(of_pictures)
    done = make_loader(folder, 2)
    done.load_state_dict({**state, "samples_seen": 8})
    assert (done.epoch, done.samples_seen) == (1, 0)


def test_a_clip_that_cannot_be_read_is_replaced_and_a_set_of_such_ends_in_a_sentence(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", damage="c3=broken")
    keys = [key for batch in make_loader(folder, 7) for key in batch["uid"]]
    assert len(keys) == 7 and "c3" not in keys
    assert keys == [key for batch in make_loader(folder, 7) for key in batch["uid"]]
    alone = write_clips(tmp_path / "one", 1, damage="c0=broken")
    with pytest.raises(UserError, match="20 clips in a row cannot be read, the last one .*c0"):
        list(make_loader(alone, 1))


@pytest.mark.parametrize(
    ("damage", "says"), [("c1.04.png", "has no frame 4 of c1"), ("c1.txt", "has frames of c1 and no c1.txt")]
)
def test_what_is_missing_is_one_sentence(damage: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        list_clips(write_clips(tmp_path / "clips", damage=damage))
    assert "\n" not in str(caught.value)


def test_other_folders_and_tars_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no tars of clips"):
        list_clips(tmp_path / "absent")
    (tmp_path / "0.tar").write_bytes(small_root.tar({"a.txt": b"a"})[0])
    with pytest.raises(UserError, match="hold no clip"):
        list_clips(tmp_path)
    (tmp_path / "0.tar").write_bytes(small_root.tar({"a.png": b"a"})[0])
    with pytest.raises(UserError, match="has no number between its key and .png"):
        list_clips(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(UserError, match="is no whole tar"):
        list_clips(tmp_path)


def test_frames_of_a_clip_are_uniform() -> None:
    assert choose_frames(8, 8) == list(range(8)) and choose_frames(80, 8) == list(range(5, 80, 10))
    assert np.diff(choose_frames(100, 8)).max() <= 13
