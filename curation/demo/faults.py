"""Faults of the web, one function each: `FAULTS["redirect_loop"]` has its handler and the status of its row.

A handler takes the request and the bytes of a picture. A new function here is a new fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from curation.demo import altered
from curation.schema import Status

Handler = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
DRIP_S = 0.3
CHUNK = bytes(16 << 10)
SEEN = web.AppKey("seen", set[str])
"""Paths that a server has answered."""


@dataclass(frozen=True)
class Fault:
    """`host` is the host on which the demo's metadata puts it, `status` the status of a row that meets it."""

    name: str
    status: Status
    host: str
    handler: Handler


FAULTS: dict[str, Fault] = {}


def fault(status: Status, host: str = "www.faults.example") -> Callable[[Handler], Handler]:
    """Register the decorated handler under its own name."""

    def register(handler: Handler) -> Handler:
        FAULTS[handler.__name__] = Fault(handler.__name__, status, host, handler)
        return handler

    return register


def picture(data: bytes, content_type: str = "image/jpeg", **headers: str) -> web.Response:
    """An answer with `data` as a picture."""
    return web.Response(body=data, content_type=content_type, headers=headers)


def _is_first(request: web.Request) -> bool:
    """Whether this server sees the path for the first time."""
    seen = request.app[SEEN]
    first = request.path not in seen
    seen.add(request.path)
    return first


@fault(Status.HTTP_404)
async def missing(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(status=404, text="not found")


@fault(Status.HTTP_410)
async def gone(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(status=410, text="gone")


@fault(Status.OK)
async def broken_once(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(status=500) if _is_first(request) else picture(data)


@fault(Status.OK, "busy.faults.example")
async def asked_to_wait(request: web.Request, data: bytes) -> web.StreamResponse:
    return web.Response(status=429, headers={"Retry-After": "1"}) if _is_first(request) else picture(data)


@fault(Status.OK)
async def redirect_chain(request: web.Request, data: bytes) -> web.StreamResponse:
    step = int(request.query.get("step", "0"))
    if step < 3:
        raise web.HTTPFound(f"{request.path}?step={step + 1}")
    return picture(data)


@fault(Status.TOO_MANY_REDIRECTS)
async def redirect_loop(request: web.Request, data: bytes) -> web.StreamResponse:
    raise web.HTTPFound(request.path)


@fault(Status.BLOCKED_ADDRESS)
async def redirect_inside(request: web.Request, data: bytes) -> web.StreamResponse:
    """Redirect to the address where clouds serve the credentials of their machines."""
    raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")


@fault(Status.TIMEOUT, "slow.faults.example")
async def dripping(request: web.Request, data: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg", "Content-Length": str(len(data))})
    await response.prepare(request)
    for byte in data:
        await response.write(bytes([byte]))
        await asyncio.sleep(DRIP_S)
    return response


@fault(Status.TOO_LARGE)
async def endless(request: web.Request, data: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(data)
    while True:
        await response.write(CHUNK)
        await asyncio.sleep(0)


@fault(Status.TRUNCATED)
async def torn_jpeg(request: web.Request, data: bytes) -> web.StreamResponse:
    return picture(data[: len(data) // 2])


@fault(Status.NOT_AN_IMAGE)
async def html_as_jpeg(request: web.Request, data: bytes) -> web.StreamResponse:
    return picture(b"<!DOCTYPE html><html><body>Sign in to see this picture.</body></html>")


@fault(Status.TOO_MANY_PIXELS)
async def huge_png(request: web.Request, data: bytes) -> web.StreamResponse:
    made = await asyncio.get_running_loop().run_in_executor(None, altered.huge_png)
    return picture(made, "image/png")


@fault(Status.OK)
async def exif_rotated(request: web.Request, data: bytes) -> web.StreamResponse:
    return picture(altered.turn(data))


@fault(Status.OK)
async def cmyk_jpeg(request: web.Request, data: bytes) -> web.StreamResponse:
    return picture(altered.to_cmyk(data))


@fault(Status.OK)
async def transparent_palette(request: web.Request, data: bytes) -> web.StreamResponse:
    return picture(altered.to_palette(data), "image/png")


@fault(Status.OK)
async def animated_gif(request: web.Request, data: bytes) -> web.StreamResponse:
    return picture(altered.animate(data), "image/gif")


@fault(Status.OK)
async def webp(request: web.Request, data: bytes) -> web.StreamResponse:
    return picture(altered.to_webp(data), "image/webp")


@fault(Status.EMPTY)
async def zero_bytes(request: web.Request, data: bytes) -> web.StreamResponse:
    return picture(b"")


@fault(Status.OPTED_OUT)
async def opted_out(request: web.Request, data: bytes) -> web.StreamResponse:
    return picture(data, **{"X-Robots-Tag": "max-image-preview:large, noai"})


@fault(Status.ROBOTS, "private.example")
async def disallowed(request: web.Request, data: bytes) -> web.StreamResponse:
    """The robots.txt of its host forbids it; a client that asks all the same gets the picture."""
    return picture(data)


@fault(Status.HASH_MISMATCH)
async def other_bytes(request: web.Request, data: bytes) -> web.StreamResponse:
    """A picture, but not the one whose sha256 the metadata recorded."""
    return picture(altered.recompress(data))
