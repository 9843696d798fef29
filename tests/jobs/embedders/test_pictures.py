"""Pictures are decoded while others are encoded, and each Spark task has the GPU that Spark gave to it."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from pyspark import TaskContext

from jobs.embedders._pictures import PictureEmbedder, find_device

WAIT_S = 60


class Number(PictureEmbedder):
    """The vector of a picture is the number that it consists of."""

    dim = 1

    def __init__(self) -> None:
        self.decoded = {number: Event() for number in range(12)}
        self.waits_for: int | None = None

    def decode(self, picture: bytes) -> np.ndarray | None:
        if not picture.isdigit():
            return None
        self.decoded[int(picture)].set()
        return np.array([int(picture)])

    def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        if self.waits_for is not None and pixels[0] == 0:
            assert self.decoded[self.waits_for].wait(WAIT_S), "nothing was decoded meanwhile"
        return np.stack(pixels).astype(np.float32)


def read(picture: bytes) -> bytes:
    if picture == b"lost":
        raise OSError("lost")
    return picture


def embed(pictures: list[bytes], embedder: Number, num_decoders: int = 2) -> list[float]:
    reads = [lambda picture=picture: read(picture) for picture in pictures]
    return np.concatenate([*embedder.embed_ahead(reads, 3, num_decoders)]).ravel().tolist()


@pytest.mark.parametrize("num_decoders", [1, 5])
def test_vectors_come_in_the_order_of_the_pictures(num_decoders: int) -> None:
    pictures = [b"%d" % number for number in range(10)]
    assert embed(pictures, Number(), num_decoders) == list(range(10))
    found = embed([*pictures[:4], b"broken", b"5"], Number(), num_decoders)
    assert found[:4] == [0, 1, 2, 3] and np.isnan(found[4]) and found[5] == 5
    assert np.isnan(embed([b"broken"] * 3, Number())).all()


def test_the_next_batches_are_decoded_while_one_is_encoded() -> None:
    embedder = Number()
    embedder.waits_for = 5
    assert embed([b"%d" % number for number in range(12)], embedder) == list(range(12))


def test_what_reading_raises_is_raised() -> None:
    with pytest.raises(OSError, match="lost"):
        embed([b"1", b"2", b"3", b"lost", b"4"], Number())


def test_a_task_has_the_gpu_that_spark_gave_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device().type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert str(find_device()) == "cuda"
    given = SimpleNamespace(resources=lambda: {"gpu": SimpleNamespace(addresses=["3"])})
    monkeypatch.setattr(TaskContext, "get", classmethod(lambda cls: given))
    assert str(find_device()) == "cuda:3"
