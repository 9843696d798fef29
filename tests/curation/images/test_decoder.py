"""The decoding process: many pictures at once, and what a death or a hang of it costs."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from curation.images import decoder as decoding
from curation.images.decoder import Decoder, Decoders, end_idle
from curation.images.probe import PictureError
from curation.images.process import Stored, process
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from tests.support.hostile_pictures import jpeg, png_bomb, saved
from tests.support.mortal_decoder import DIE, HANG, LIE
from tests.support.moved_clock import ForwardLoop

CONFIG = DownloadConfig(image_size=32)
Outcomes = list[Stored | BaseException]


@pytest.fixture(autouse=True)
def no_idle_processes() -> Iterator[None]:
    end_idle()
    yield
    end_idle()


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MODULE", "tests.support.mortal_decoder")


async def outcomes(decoder: Decoder | Decoders, pictures: list[bytes]) -> Outcomes:
    try:
        return await asyncio.gather(*(decoder.decode(data) for data in pictures), return_exceptions=True)
    finally:
        await decoder.close()


def run(pictures: list[bytes], config: DownloadConfig = CONFIG) -> Outcomes:
    async def main() -> Outcomes:
        return await outcomes(Decoder(config), pictures)

    return asyncio.run(main())


def test_answers_are_those_of_process_in_their_order() -> None:
    pictures = [jpeg(40 + n, 50, seed=n) for n in range(100)] + [b"no picture", jpeg()[:200]]
    random.Random(0).shuffle(pictures)
    for data, found in zip(pictures, run(pictures), strict=True):
        try:
            wanted = process(data, CONFIG)
        except PictureError as error:
            assert isinstance(found, PictureError) and (found.status, found.detail) == (error.status, error.detail)
        else:
            assert isinstance(found, Stored)
            assert found == wanted


def test_a_picture_larger_than_the_sockets_hold_goes_through() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8))
    data = saved(noise, "PNG")
    assert len(data) > 6_000_000
    config = DownloadConfig(resize_mode="keep_ratio", image_size=1400, encode_format="png")
    small, large = jpeg(), data
    found = run([small, large, small, large], config)
    assert all(isinstance(one, Stored) for one in found)
    assert len(found[1].data) > 5_000_000  # type: ignore[union-attr]


@pytest.mark.usefixtures("mortal")
@pytest.mark.parametrize("places", [[0], [11], [3, 7, 8], list(range(12))[9:]])
def test_a_death_costs_the_picture_that_caused_it(places: list[int]) -> None:
    pictures = [jpeg(40, 50, seed=n) + (DIE if n in places else b"") for n in range(12)]
    found = run(pictures)
    for number, one in enumerate(found):
        if number in places:
            assert isinstance(one, PictureError) and one.status is Status.DECODER_DIED
        else:
            assert isinstance(one, Stored)


@pytest.mark.usefixtures("mortal")
def test_after_a_death_the_next_picture_finds_a_new_process() -> None:
    async def main() -> list[str]:
        decoder, ends = Decoder(CONFIG), []
        for data in (jpeg(), jpeg() + DIE, jpeg(), jpeg() + DIE, jpeg() + DIE, jpeg()):
            try:
                await decoder.decode(data)
                ends.append("ok")
            except PictureError as error:
                ends.append(error.status.value)
        await decoder.close()
        return ends

    died = Status.DECODER_DIED.value
    assert asyncio.run(main()) == ["ok", died, "ok", died, died, "ok"]


@pytest.mark.usefixtures("mortal")
def test_a_hang_costs_the_picture_that_caused_it() -> None:
    pictures = [jpeg(40, 50, seed=n) + (HANG if n == 3 else b"") for n in range(8)]

    async def main() -> Outcomes:
        decoder = Decoder(CONFIG, 60.0)
        ends = [asyncio.create_task(decoder.decode(data)) for data in pictures]
        loop, among_others = asyncio.get_running_loop(), False
        assert isinstance(loop, ForwardLoop)
        while not ends[3].done():
            alone = among_others and all(end.done() for end in ends[:3])
            if decoder._process is not None and decoder._process.ready and (alone or not among_others):
                loop.forward(61.0)
                among_others = True
            await asyncio.sleep(0.02)
        try:
            return await asyncio.gather(*ends, return_exceptions=True)
        finally:
            await decoder.close()

    with asyncio.Runner(loop_factory=ForwardLoop) as runner:
        found = runner.run(main())
    assert [isinstance(one, Stored) for one in found] == [n != 3 for n in range(8)]
    assert isinstance(found[3], PictureError) and found[3].status is Status.DECODER_DIED
    assert "no answer" in found[3].detail


@pytest.mark.usefixtures("mortal")
def test_nonsense_for_an_answer_costs_the_picture_that_caused_it() -> None:
    pictures = [jpeg(40, 50, seed=n) + (LIE if n == 3 else b"") for n in range(8)]
    found = run(pictures)
    assert [isinstance(one, Stored) for one in found] == [n != 3 for n in range(8)]
    assert isinstance(found[3], PictureError) and found[3].status is Status.DECODER_DIED
    assert "is no answer" in found[3].detail


def test_more_pictures_than_a_process_is_sent_wait_their_turn() -> None:
    pictures = [jpeg(40, 50, seed=n) for n in range(5 * decoding.MAX_IN_FLIGHT)]

    async def main() -> tuple[Outcomes, int]:
        decoder = Decoder(CONFIG)
        waiting = asyncio.gather(*(decoder.decode(data) for data in pictures))
        await asyncio.sleep(0)
        most = sum(one.sent > 0 for one in decoder._pictures)
        try:
            return list(await waiting), most
        finally:
            await decoder.close()

    found, most = asyncio.run(main())
    assert [one.stored_sha256 for one in found if isinstance(one, Stored)] == [
        process(data, CONFIG).stored_sha256 for data in pictures
    ]
    assert most == decoding.MAX_IN_FLIGHT


def test_killed_from_outside_while_at_work_loses_one_picture_at_most() -> None:
    async def main() -> Outcomes:
        decoder = Decoder(CONFIG)

        async def kill() -> None:
            for _ in range(3):
                await asyncio.sleep(0.1)
                if decoder.pid is not None and decoder.num_in_flight:
                    os.kill(decoder.pid, signal.SIGKILL)

        killing = asyncio.create_task(kill())
        found = await outcomes(decoder, [jpeg(400, 300, seed=n) for n in range(150)])
        await killing
        return found

    found = asyncio.run(main())
    assert sum(not isinstance(one, Stored) for one in found) <= 3
    assert all(isinstance(one, Stored) or one.status is Status.DECODER_DIED for one in found)  # type: ignore[union-attr]


def test_a_process_that_does_not_start_is_an_error_not_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MODULE", "curation.images.no_such_module")
    found = run([jpeg(), jpeg()])
    assert all(isinstance(one, RuntimeError) for one in found)


def test_a_picture_that_wants_too_much_memory_fails_alone() -> None:
    """Colour of 64 megapixels needs 192 MB and more; the limit here is 256 MB in all."""
    config = DownloadConfig(max_pixels=1_000_000_000, image_size=32)
    limited = DownloadConfig(max_pixels=1_000_000, image_size=32)
    assert isinstance(run([jpeg()], limited)[0], Stored)
    bomb = png_bomb(8_000)
    found = run([jpeg(), bomb, jpeg()], config)
    assert isinstance(found[0], Stored) and isinstance(found[2], Stored)


def test_the_next_unit_finds_the_process_running() -> None:
    async def pid_after(config: DownloadConfig) -> int | None:
        decoder = Decoder(config)
        await decoder.decode(jpeg())
        pid = decoder.pid
        await decoder.close()
        return pid

    first = asyncio.run(pid_after(CONFIG))
    assert asyncio.run(pid_after(CONFIG)) == first
    assert asyncio.run(pid_after(DownloadConfig(image_size=33))) != first


def test_several_decoders_share_the_work() -> None:
    async def main() -> Outcomes:
        return await outcomes(
            Decoders(DownloadConfig(image_size=32, num_decoders=2)), [jpeg(seed=n) for n in range(60)]
        )

    assert all(isinstance(one, Stored) for one in asyncio.run(main()))
