"""A decoding process of its own, `python -m curation.images.decoder`: its death costs one picture.

Frames on both pipes: 8 bytes of length, then a pickle. The first frame in is the configuration, every further one a
picture; every answer is a `Stored` or the arguments of a `PictureError`. Address space is limited, so that a picture
that asks for more than it may have ends as its own failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import resource
import struct
import sys
from typing import BinaryIO

from curation.config import DownloadConfig
from curation.images.probe import PictureError
from curation.images.process import Stored, process
from curation.schema import Status

LENGTH = struct.Struct(">Q")
DECODE_TIMEOUT_S = 60.0
BYTES_PER_PIXEL = 12
"""Address space that one pixel may need while it is decoded, turned and flattened."""


def limit_memory(max_pixels: int) -> None:
    """Cap the address space at what is mapped now plus room for one picture of `max_pixels`."""
    with open("/proc/self/statm", encoding="ascii") as f:
        mapped = int(f.read().split()[0]) * resource.getpagesize()
    room = max(256 << 20, max_pixels * BYTES_PER_PIXEL)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + room, mapped + room))


def _read_frame(stream: BinaryIO) -> bytes | None:
    prefix = stream.read(LENGTH.size)
    if len(prefix) < LENGTH.size:
        return None
    return stream.read(LENGTH.unpack(prefix)[0])


def _answer(data: bytes, config: DownloadConfig) -> Stored | tuple[Status, str]:
    try:
        return process(data, config)
    except PictureError as error:
        return error.status, error.detail
    except MemoryError:
        return Status.CORRUPT, "decoding needs more memory than one picture may have"


def main() -> None:
    """Serve pictures from standard input until it closes."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not break the frames
    first = _read_frame(source)
    if first is None:
        return
    config: DownloadConfig = pickle.loads(first)
    with contextlib.suppress(OSError, ValueError):
        limit_memory(config.max_pixels)
    while (data := _read_frame(source)) is not None:
        answer = pickle.dumps(_answer(data, config), pickle.HIGHEST_PROTOCOL)
        sink.write(LENGTH.pack(len(answer)) + answer)
        sink.flush()


class Decoder:
    """The parent's side of one decoding process, started on first use and again after a death."""

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None

    async def decode(self, data: bytes) -> Stored:
        """Process one picture. Raises PictureError, with status decoder_died when the process died of it."""
        try:
            async with asyncio.timeout(DECODE_TIMEOUT_S):
                answer = await self._ask(data)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            await self.close()
            slow = isinstance(error, TimeoutError)
            what = f"no answer in {DECODE_TIMEOUT_S:.0f} s" if slow else "the decoding process died of this picture"
            raise PictureError(Status.DECODER_DIED, what) from error
        if isinstance(answer, Stored):
            return answer
        raise PictureError(*answer)

    async def _ask(self, data: bytes) -> Stored | tuple[Status, str]:
        process = self._process or await self._start()
        assert process.stdin is not None and process.stdout is not None  # both were asked for as pipes
        process.stdin.write(LENGTH.pack(len(data)))
        process.stdin.write(data)
        await process.stdin.drain()
        length = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))[0]
        return pickle.loads(await process.stdout.readexactly(length))

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "curation.images.decoder",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 20,
        )
        assert self._process.stdin is not None
        payload = pickle.dumps(self._config)
        self._process.stdin.write(LENGTH.pack(len(payload)) + payload)
        return self._process

    async def close(self) -> None:
        """End the process, if one runs."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._process = None


if __name__ == "__main__":
    main()
