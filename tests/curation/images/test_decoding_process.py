"""The decoding process by itself: what it answers, when it sends, and that it ends with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.images import decoding_process
from curation.images.decoder import Decoder
from curation.images.frames import ALONE, FRAME, Frames
from curation.images.probe import PictureError
from curation.images.process import process
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from tests.support.hostile_pictures import jpeg, png_bomb
from tests.support.memory import memory_bytes

CONFIG = DownloadConfig(image_size=32)


def test_the_process_ends_with_its_parent() -> None:
    """Whatever kills a worker: no decoder stays behind."""
    script = (
        "import asyncio, sys\n"
        "from curation.recipe.config import DownloadConfig\n"
        "from curation.images.decoder import Decoder\n"
        "from tests.support.hostile_pictures import jpeg\n"
        "async def main():\n"
        "    decoder = Decoder(DownloadConfig())\n"
        "    await decoder.decode(jpeg())\n"
        "    print(decoder.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    parent.kill()
    parent.wait()
    for _ in range(1200):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(") ")[1][:1]:
            return
        time.sleep(0.05)
    pytest.fail("the decoding process outlived its parent")


@pytest.mark.slow
@pytest.mark.parametrize("color, depth, channels", [(6, 8, 4), (6, 16, 4), (0, 16, 1), (2, 8, 3)])
def test_the_largest_picture_that_is_let_in_takes_half_a_gigabyte(color: int, depth: int, channels: int) -> None:
    """99.8 megapixels of colour with transparency, of 16 bits: twice, so that what is left behind would show."""

    async def main() -> int:
        decoder = Decoder(DownloadConfig())
        for _ in range(2):
            stored = await decoder.decode(png_bomb(9_990, color, depth, channels))
            assert (stored.width, stored.stored_width) == (9_990, 224)
        largest = memory_bytes("VmHWM", decoder.pid)
        await decoder.close()
        return largest

    assert asyncio.run(main()) < 640 << 20


@contextlib.contextmanager
def served(config: DownloadConfig = CONFIG) -> Iterator[tuple[socket.socket, Frames]]:
    """The parent's end of a service that runs in a thread, after it has said that it is ready; unlimited in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding_process, "limit_memory", lambda max_pixels: None)
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=decoding_process.Service(theirs).run)
        thread.start()
        try:
            frames = Frames()
            settings = pickle.dumps(config)
            ours.sendall(FRAME.pack(0, len(settings)) + settings)
            assert read_answer(ours, frames) == (b"", b"")
            yield ours, frames
        finally:
            ours.close()
            thread.join()
            theirs.close()


def read_answer(link: socket.socket, frames: Frames) -> tuple[bytes, bytes]:
    while (frame := frames.take(len_about=True)) is None:
        assert frames.receive(link)
    return frame[1], frame[2]


def test_each_picture_has_its_answer_in_order() -> None:
    pictures = [jpeg(40 + n, 50, seed=n) for n in range(20)]
    with served() as (link, frames):
        link.sendall(b"".join(FRAME.pack(0, len(data)) + data for data in [*pictures, b"none"]))
        for data in pictures:
            about, stored = read_answer(link, frames)
            wanted = process(data, CONFIG)
            assert dict(zip(decoding_process.NAMES, marshal.loads(about), strict=True)) | {"data": stored} == vars(
                wanted
            )
        assert marshal.loads(read_answer(link, frames)[0])[0] == "not_an_image"


def test_a_picture_that_needs_no_change_is_not_sent_back() -> None:
    with served(DownloadConfig(resize_mode="no")) as (link, frames):
        link.sendall(FRAME.pack(0, len(jpeg())) + jpeg())
        assert read_answer(link, frames)[1] == b""


def test_a_suspect_is_answered_although_more_pictures_have_come() -> None:
    """Its answer leaves before the next picture is looked at, which may end the process."""
    told = []
    with pytest.MonkeyPatch.context() as patch, served() as (link, frames):
        patch.setattr(decoding_process, "answer_picture", lambda data, config: (told.append(data), (data, b""))[1])
        link.sendall(b"".join(FRAME.pack(ALONE, 1) + bytes([65 + n]) for n in range(3)))
        assert [read_answer(link, frames)[0] for _ in range(3)] == [b"A", b"B", b"C"]
    assert told == [b"A", b"B", b"C"]


@pytest.mark.parametrize(
    ("raised", "status", "detail"),
    [
        (PictureError(Status.TRUNCATED, "torn"), "truncated", "torn"),
        (MemoryError(), "too_many_pixels", "more memory than one picture may have"),
        (ZeroDivisionError("a zero"), "internal_error", "ZeroDivisionError: a zero"),
    ],
)
def test_whatever_a_library_raises_is_the_answer_of_that_picture(raised: Exception, status: str, detail: str) -> None:
    def fail(*_: object) -> None:
        raise raised

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding_process, "process", fail)
        about, data = decoding_process.answer_picture(b"bytes", CONFIG)
    assert marshal.loads(about)[0] == status and detail in marshal.loads(about)[1] and data == b""


def test_a_service_whose_parent_is_gone_ends() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        decoding_process.Service(theirs).run()
