"""Inputs of the readers of foreign bytes, changed by chance: a reader gives an answer or its own error, and soon.

The input of a number is the same for the same seed, whatever came before it:

    make_input(TarReader(), seed=1, number=7)
"""

from __future__ import annotations

import asyncio
import io
import random
import signal
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from curation import shards
from curation.adopt.tar_samples import TarContent, read_content, read_record, sniff_pictures
from curation.demo import web as demo_web
from curation.errors import UserError
from curation.fetch.codings import decode_body
from curation.fetch.http1 import HttpError
from curation.fetch.robots import parse_robots
from curation.images.decoder import Decoder
from curation.images.probe import PictureError
from curation.images.process import Stored
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from curation.storage import Root
from tests.support import hostile_pictures as made
from tests.support.http_exchange import ANSWERS, BODY, MAX_BYTES, exchange

KEPT = Path(__file__).parent / "fuzzed"
"""Inputs that broke a reader once; tests/test_fuzzed.py reads each of them again."""
LIMIT_S = 120
"""Far more than any input takes, so that a busy machine breaks none."""
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
MAX_CHANGES = 5


class Reader(Protocol):
    """`seeds` are inputs as they should be; `read` says of each input what broke, None where nothing did."""

    name: str

    @property
    def seeds(self) -> Sequence[bytes]: ...

    def read(self, inputs: Sequence[bytes]) -> list[str | None]: ...


def make_input(reader: Reader, seed: int, number: int) -> bytes:
    """Input `number`: one of the reader's seeds with one to five changes."""
    rng = random.Random(f"{seed}/{reader.name}/{number}")
    data = bytearray(rng.choice(reader.seeds))
    for _ in range(rng.randint(1, MAX_CHANGES)):
        rng.choice(CHANGES)(data, rng, reader.seeds)
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """Headers stand in front, so half of all changes are made there."""
    size = len(data) + 1
    return rng.randrange(min(size, 600) if rng.random() < 0.5 else size)


def _flip_bit(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[_place(data, rng) % len(data)] ^= 1 << rng.randrange(8)


def _set_number(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at, size = _place(data, rng), rng.choice((1, 2, 4))
    number = rng.choice(NUMBERS) & ((1 << 8 * size) - 1)
    data[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))


def _set_digits(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    """A number in text, as HTTP and tar have them."""
    at = _place(data, rng)
    text = rng.choice(
        (b"-1", b"0", b"00000000000", b"77777777777", b"99999999999999999999", b"ffffffffffffffff", b"1e9")
    )
    data[at : at + len(text)] = text


def _cut(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    del data[_place(data, rng) :]


def _delete(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, rng)
    del data[at : at + rng.randint(1, 64)]


def _repeat(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, rng)
    data[at:at] = data[at : at + rng.randint(1, 512)] * rng.randint(1, 20)


def _insert(data: bytearray, rng: random.Random, _: Sequence[bytes]) -> None:
    at = _place(data, rng)
    data[at:at] = rng.randbytes(rng.randint(1, 64))


def _splice(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    """What follows is from another input."""
    other = rng.choice(seeds)
    data[_place(data, rng) :] = other[rng.randrange(len(other) + 1) :]


CHANGES = (_flip_bit, _flip_bit, _set_number, _set_number, _set_digits, _cut, _delete, _repeat, _insert, _splice)


class PictureReader:
    """The decoding process: it lives, and says stored or why not."""

    name = "picture"
    config = DownloadConfig(image_size=48, formats=("jpeg", "png", "webp", "gif"))

    @property
    def seeds(self) -> Sequence[bytes]:
        return _pictures()

    def read(self, inputs: Sequence[bytes]) -> list[str | None]:
        return asyncio.run(self._read(inputs))

    async def _read(self, inputs: Sequence[bytes]) -> list[str | None]:
        decoder = Decoder(self.config)
        try:
            found = await asyncio.gather(*map(decoder.decode, inputs), return_exceptions=True)
        finally:
            await decoder.close()
        return list(map(self._judge, found))

    def _judge(self, found: Stored | BaseException) -> str | None:
        if isinstance(found, PictureError):
            return found.detail if found.status is Status.DECODER_DIED else None
        return repr(found) if isinstance(found, BaseException) else None


@cache
def _pictures() -> tuple[bytes, ...]:
    folder = Path(demo_web.__file__).parent / "pictures"
    small = sorted(folder.glob("*.jpg"), key=lambda path: (path.stat().st_size, path.name))[:6]
    shapes = (made.jpeg, made.png, made.webp, made.gif, made.turned_jpeg, made.sixteen_bit_png, made.profiled_jpeg)
    more = (made.saved(made.scene(), "JPEG", progressive=True), made.gif_of_frames(3), made.apng_lie())
    return (*(shape() for shape in shapes), *more, *(path.read_bytes() for path in small))


class HttpReader:
    """The HTTP parser, fed in pieces, with what takes the body and the robots.txt that came by it."""

    name = "http"

    @property
    def seeds(self) -> Sequence[bytes]:
        return _answers()

    def read(self, inputs: Sequence[bytes]) -> list[str | None]:
        return [catch(partial(self._read, data), HttpError) for data in inputs]

    def _read(self, data: bytes) -> None:
        rng = random.Random(data)
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 6)))
        pieces = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        how, body, _ = asyncio.run(exchange(pieces, closes=True))
        assert how in {status.value for status in Status}
        assert len(body) <= MAX_BYTES
        parse_robots(body.decode("utf-8", "surrogateescape"), "clip-curation")
        for coding in ("gzip", "deflate"):
            with_limit = decode_or_refuse(body, coding)
            assert len(with_limit) <= MAX_BYTES


def decode_or_refuse(body: bytes, coding: str) -> bytes:
    try:
        return decode_body(body, coding, MAX_BYTES)
    except HttpError:
        return b""


@cache
def _answers() -> tuple[bytes, ...]:
    import gzip
    import zlib

    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    coded = [gzip.compress(BODY, mtime=0), zlib.compress(BODY)]
    robots = b"User-agent: *\nDisallow: /a*b$\nAllow: /a/*/c\nCrawl-delay: 3\n" * 4
    moved = b"HTTP/1.1 301 Moved\r\nLocation: //b.test/\r\n /c.jpg\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
    told = b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noai, unavailable_after: 1 Jan 2020\r\nContent-Length: %d\r\n\r\n%b"
    return (
        *(data for data, _, _ in ANSWERS.values()),
        *(head % len(body) + body for body in coded),
        told % (len(robots), robots),
        moved,
    )


class TarReader:
    """The two readers of tars, of foreign ones and of shards, with what looks into their members."""

    name = "tar"

    @property
    def seeds(self) -> Sequence[bytes]:
        return _tars()

    def read(self, inputs: Sequence[bytes]) -> list[str | None]:
        with tempfile.TemporaryDirectory() as folder:
            root = Root(folder)
            return [catch(partial(self._read, root, data), UserError) for data in inputs]

    def _read(self, root: Root, data: bytes) -> None:
        Path(root.path, "x.tar").write_bytes(data)
        self._look(root, read_or_refuse(lambda: read_content(root, "x.tar")), len(data))
        for found in read_or_refuse(lambda: list(shards.index(root, "x.tar"))) or []:
            assert found.offset >= 0 and found.offset + found.size <= len(data)

    def _look(self, root: Root, content: TarContent | None, num_bytes: int) -> None:
        with root.open("x.tar") as f:
            for sample in content.samples if content else []:
                for member in sample.files.values():
                    assert member.offset >= 0 and member.size >= 0 and member.offset + member.size <= num_bytes
                pictures = sniff_pictures(f, sample.files)
                read_record(f, sample.files, pictures[0] if pictures else None)


def read_or_refuse(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UserError:
        return None


@cache
def _tars() -> tuple[bytes, ...]:
    members = {"a/001.jpg": made.jpeg(), "a/001.txt": b"a caption", "a/001.json": b'{"url": "http://h.test/1.jpg"}'}
    members |= {f"{'long' * 40}/é{number}.png": made.png() for number in range(2)}
    forms = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    return (_make_tar({name: data for name, data in members.items() if len(name) < 90}, tarfile.USTAR_FORMAT),) + tuple(
        _make_tar(members, form) for form in forms
    )


def _make_tar(members: dict[str, bytes], form: int) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("b/002.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "a/001.jpg"
        archive.addfile(link)
    return sink.getvalue()


def catch(read: Callable[[], object], *refusals: type[Exception]) -> str | None:
    """What broke while `read` ran: anything but `refusals`, or more than LIMIT_S; None when nothing did."""
    try:
        with limited():
            read()
    except refusals:
        return None
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
        return repr(error)
    return None


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError in the block after LIMIT_S."""

    def end(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"it took more than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


READERS: tuple[Reader, ...] = (PictureReader(), HttpReader(), TarReader())
