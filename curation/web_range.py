"""A part of a file on the web: no more of it is read than was asked for, whatever the server answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from curation.errors import UserError

CHUNK_BYTES = 1 << 20


def read_web_range(fs: Any, url: str, start: int, end: int | None) -> bytes:
    """Bytes `start` to `end` (to the last one when None) of `url`; fewer where the file ends.

    fsspec's own reader of ranges takes the whole file where a server knows none, and gives its first bytes.

    Raises:
        FileNotFoundError: for an answer 404 or 410.
        UserError: when the server answers with the whole file to somebody who asked for a later part.
        aiohttp.ClientError: for other failures.
    """
    from fsspec.asyn import sync

    return b"" if end is not None and end <= start else bytes(sync(fs.loop, _read, fs, url, start, end))


async def _read(fs: Any, url: str, start: int, end: int | None) -> bytes:
    session = await fs.set_session()
    headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}", "Accept-Encoding": "identity"}
    async with session.get(fs.encode_url(url), headers=headers) as answer:
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return b""
        if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise FileNotFoundError(url)
        answer.raise_for_status()
        if answer.status != HTTPStatus.PARTIAL_CONTENT and start > 0:
            raise UserError(
                f"The server of {url} answers a request for a part of it with the whole file: copy that folder to a "
                f"file system or a store, or serve it by a server that knows ranges."
            )
        return await _read_at_most(answer.content, None if end is None else end - start)


async def _read_at_most(content: Any, size: int | None) -> bytes:
    parts: list[bytes] = []
    left = size
    while (left is None or left > 0) and (part := await content.read(CHUNK_BYTES)):
        parts.append(part if left is None else part[:left])
        left = None if left is None else left - len(part)
    return b"".join(parts)
