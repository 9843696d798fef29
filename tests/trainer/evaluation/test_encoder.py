"""The encoder: any batch size gives the same rows, all ranks run as many forwards, and what is broken is named."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from curation.errors import UserError
from trainer.evaluation.encoder import Encoder, Picture
from trainer.launch import Rank
from trainer.objectives.contrastive_model import Outputs


class Means:
    """A model whose features are the mean of a picture's channels, and of a caption's tokens; it counts forwards."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def __call__(self, pixels: Tensor | None, tokens: Tensor | None) -> Outputs:
        """`[b, 3]` of pictures, `[b, 1]` of captions."""
        image = torch.empty(0, 3) if pixels is None else pixels.mean((2, 3))
        text = torch.empty(0, 1) if tokens is None else tokens.float().sum(1, keepdim=True)
        self.batch_sizes.append(len(image) + len(text))
        return Outputs(image, text, torch.ones(1), None)


def _encoder(model: Means, batch_size: int) -> Encoder:
    return Encoder(model, rank=Rank(), device=torch.device("cpu"), image_size=8, batch_size=batch_size)


def _pictures(count: int) -> list[Picture]:
    """Wide pictures, dark at the sides and each of another brightness in the middle."""
    found = []
    for number in range(count):
        pixels = np.zeros((8, 24, 3), np.uint8)
        pixels[:, 8:16] = 20 * (number + 1)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        found.append(Picture(f"picture {number}", buffer.getvalue()))
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_rows_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    rows = _encoder(Means(), batch_size).encode_images(_pictures(7), ["crop", "squash"], "set")
    wanted = _encoder(Means(), 2).encode_images(_pictures(7), ["crop", "squash"], "set")
    for name in ("crop", "squash"):
        torch.testing.assert_close(rows[name], wanted[name])
        brightness = rows[name].mean(1)
        assert len(brightness) == 7 and (brightness.diff() > 0).all(), "in the order of the pictures"
    assert (rows["crop"] > rows["squash"]).all(), "squashing keeps the dark sides"


def test_captions_keep_their_order() -> None:
    captions = ["a", "a dog", "a dog and a cat"]
    rows = _encoder(Means(), 2).encode_texts(captions, "captions")
    alone = [_encoder(Means(), 1).encode_texts([caption], "captions") for caption in captions]
    torch.testing.assert_close(rows, torch.cat(alone))


def test_a_rank_that_has_run_out_runs_as_many_forwards_and_forgets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(encoder: Encoder, mine: Any) -> list[Any]:
        return [mine, 4] if isinstance(mine, int) else [mine]  # another rank has four batches

    monkeypatch.setattr(Encoder, "_gather_objects", gather)
    model = Means()
    rows = _encoder(model, 2).encode_images(_pictures(3), ["crop"], "set")
    assert model.batch_sizes == [2, 1, 1, 1] and len(rows["crop"]) == 3
    model = Means()
    assert len(_encoder(model, 2).encode_texts(["a", "b", "c"], "captions")) == 3
    assert model.batch_sizes == [2, 1, 1, 1]


def test_shares_of_the_ranks_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    items = torch.arange(7)[:, None]
    encoders = [
        Encoder(Means(), rank=Rank(rank, rank, 3, 3), device=torch.device("cpu"), image_size=8, batch_size=2)
        for rank in range(3)
    ]
    shares = [encoder.share(list(range(7))) for encoder in encoders]
    assert sorted(sum(map(list, shares), [])) == list(range(7)) and max(map(len, shares)) - min(map(len, shares)) == 1
    monkeypatch.setattr(Encoder, "_gather_objects", lambda *_: [items[list(share)] for share in shares])
    assert torch.equal(encoders[1].gather_in_order(items[list(shares[1])]), items)
    assert encoders[1].gather_rows(items[list(shares[1])]).flatten().tolist() == [0, 3, 6, 1, 4, 2, 5]


def test_pictures_that_cannot_be_read_are_counted_and_the_first_is_named() -> None:
    pictures = _pictures(4)
    pictures[1] = Picture("the broken one", b"no picture")
    pictures[3] = Picture("another", b"")
    with pytest.raises(UserError, match="2 pictures of set cannot be read, the first is the broken one"):
        _encoder(Means(), 3).encode_images(pictures, ["crop"], "set")
