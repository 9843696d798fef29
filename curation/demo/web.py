"""The server of the demo: pictures and faults under any host name, on one loopback port.

    with Web() as web:
        config = DownloadConfig(connect_to=web.connect_to, allow_addresses=(LOOPBACK,))

Paths: `/pictures/FILE` is a picture, `/copies/KIND/FILE` an altered copy, `/faults/NAME/FILE` a fault.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from types import TracebackType

from aiohttp import web
from PIL import Image

from curation.demo import altered
from curation.demo.faults import FAULTS, SEEN, picture

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOOPBACK = "127.0.0.0/8"
HOSTS = "*.example"
"""Pattern of every host name in the demo's metadata; RFC 2606 reserves these names."""
CLOSED = "private.example"
COPIES = {
    "exact": lambda data: data,
    "recompressed": altered.recompress,
    "shrunk": altered.shrink,
    "cropped": altered.crop,
}
FOLDER = files("curation.demo") / "pictures"


@cache
def pictures() -> list[tuple[str, str]]:
    """(file, caption) of every picture, in order of their files."""
    lines = (FOLDER / "captions.tsv").read_text(encoding="utf-8").splitlines()
    return [(name, caption) for name, caption, _ in (line.split("\t") for line in lines)]


def picture_bytes(name: str) -> bytes:
    """The bytes of a picture in the package. Raises FileNotFoundError."""
    return (FOLDER / name).read_bytes()


@cache
def picture_size(name: str) -> tuple[int, int]:
    """Width and height of a picture of the package, in pixels. Raises FileNotFoundError."""
    with Image.open(io.BytesIO(picture_bytes(name))) as image:
        return image.size


class Web:
    """The server in a thread of its own; it listens at `port` inside the `with`.

    `num_requests` counts all requests, also those for robots.txt.
    """

    def __init__(self, port: int = 0) -> None:
        self.port, self.num_requests = port, 0
        self._known = {name for name, _ in pictures()}

    @property
    def connect_to(self) -> dict[str, str]:
        """For `download.connect_to`."""
        return {HOSTS: f"127.0.0.1:{self.port}"}

    def __enter__(self) -> Web:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run(ready))
        self._loop.close()

    async def _run(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        app = web.Application(middlewares=[self._count_request])
        app[SEEN] = set()
        app.router.add_get("/robots.txt", self._serve_robots)
        app.router.add_get("/pictures/{file}", self._serve_picture)
        app.router.add_get("/copies/{kind}/{file}", self._serve_copy)
        app.router.add_get("/faults/{name}/{file}", self._serve_fault)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        ready.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _count_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.num_requests += 1
        try:
            return await handler(request)
        except ConnectionError:  # the client has closed the connection, and no answer reaches it
            return web.Response()

    async def _serve_robots(self, request: web.Request) -> web.StreamResponse:
        if request.host.partition(":")[0] == CLOSED:
            return web.Response(text="User-agent: *\nDisallow: /\n")
        return web.Response(status=404)

    async def _serve_picture(self, request: web.Request) -> web.StreamResponse:
        return picture(self._requested_bytes(request))

    async def _serve_copy(self, request: web.Request) -> web.StreamResponse:
        alter = COPIES.get(request.match_info["kind"])
        if alter is None:
            raise web.HTTPNotFound
        return picture(alter(self._requested_bytes(request)))

    async def _serve_fault(self, request: web.Request) -> web.StreamResponse:
        fault = FAULTS.get(request.match_info["name"])
        if fault is None:
            raise web.HTTPNotFound
        return await fault.handler(request, self._requested_bytes(request))

    def _requested_bytes(self, request: web.Request) -> bytes:
        name = request.match_info["file"]
        if name not in self._known:
            raise web.HTTPNotFound
        return picture_bytes(name)
