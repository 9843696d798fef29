"""The server of `curate browse`: it listens on 127.0.0.1, and answers whoever has the token of the address."""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from aiohttp import web

from curation.browse.answers import Answers, TextSearch
from curation.browse.guard import make_guard
from curation.browse.marks import Marks
from curation.errors import UserError
from curation.manifest.query import to_json_types
from curation.storage import Root

ADDRESS = "127.0.0.1"
MAX_BODY_BYTES = 1 << 20
KINDS = {"js": "text/javascript", "css": "text/css", "html": "text/html", "txt": "text/plain", "svg": "image/svg+xml"}
STATIC = resources.files("curation.browse") / "static"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the page is served: `port` 0 is a free one, `seconds` is the time that one question may take.

    `marks` is the file that takes marks; without one the page sets none.
    """

    port: int = 0
    seconds: float = 20.0
    marks: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise UserError(f"--port must be between 0 and 65535, not {self.port}.")
        if not 0.1 <= self.seconds <= 3_600:
            raise UserError(f"--seconds must be between 0.1 and 3600, not {self.seconds:g}.")


def serve(root: Root, settings: Settings, tell: Callable[[str], object], texts: TextSearch | None = None) -> None:
    """Serve the page of `root` until the process is interrupted; `tell` gets its address once it can be opened.

    `texts` embeds what is searched for by meaning, where a model for it is at hand.

    Raises UserError for a root that cannot be read, and a port that is taken; KeyboardInterrupt when it is interrupted.
    """
    with asyncio.Runner() as runner:
        if runner.run(_serve(root, settings, tell, texts)) == signal.SIGINT:
            raise KeyboardInterrupt


async def _serve(root: Root, settings: Settings, tell: Callable[[str], object], texts: TextSearch | None) -> int:
    """Serve until a signal ends it, whose number is returned."""
    token, ended = secrets.token_urlsafe(24), asyncio.get_running_loop().create_future()
    marks = Marks(settings.marks, root) if settings.marks else None
    answers = Answers.open(root, settings.seconds, texts, marks)
    # A reader that goes away ends its question.
    app = make_app(answers, token)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
    try:
        await runner.setup()
        await _listen(runner, settings.port)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _end, ended, number)
        tell(f"http://{ADDRESS}:{runner.addresses[0][1]}/{token}/")
        return int(await ended)
    finally:
        await runner.cleanup()
        await answers.close()


def _end(ended: asyncio.Future[int], number: int) -> None:
    if not ended.done():
        ended.set_result(number)


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, ADDRESS, port).start()
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else "may not be used by this account"
        raise UserError(f"Port {port} {why}: name another one by --port, or none.") from error


def make_app(answers: Answers, token: str) -> web.Application:
    """The application: files of the page, pictures, and answers as JSON, all below `/TOKEN/`."""
    app = web.Application(middlewares=[make_guard(token)], client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/{token}/", _send_page)
    app.router.add_get("/{token}/static/{file}", _send_static)

    async def send_answer(request: web.Request) -> web.Response:
        return await _send_answer(answers, request)

    async def send_picture(request: web.Request) -> web.Response:
        shown = await answers.show(request.match_info["uid"], large="large" in request.query)
        return web.Response(body=shown.data, content_type=shown.content_type)

    app.router.add_get("/{token}/api/{question}", send_answer)
    app.router.add_post("/{token}/api/{question}", send_answer)
    app.router.add_get("/{token}/picture/{uid}", send_picture)
    return app


async def _send_page(request: web.Request) -> web.Response:
    return _send_file("index.html")


async def _send_static(request: web.Request) -> web.Response:
    return _send_file(request.match_info["file"])


def _send_file(name: str) -> web.Response:
    if name not in {file.name for file in STATIC.iterdir()}:
        raise web.HTTPNotFound
    kind = KINDS.get(name.rpartition(".")[2], "application/octet-stream")
    return web.Response(body=(STATIC / name).read_bytes(), content_type=kind, charset="utf-8")


async def _send_answer(answers: Answers, request: web.Request) -> web.Response:
    """The answer as JSON; what cannot be answered is {"error": one sentence}, which the page shows.

    Its status is 200 also then, since browsers report other ones as faults of the page.
    """
    try:
        asked = await request.json() if request.method == "POST" else dict(request.query)
        if not isinstance(asked, dict):
            raise UserError("A question is a JSON object.")
        found: Any = await answers.answer(request.match_info["question"], asked, is_change=request.method == "POST")
    except UserError as error:
        found = {"error": str(error)}
    except ValueError:
        found = {"error": "The question is no JSON."}
    text = json.dumps(to_json_types(found), ensure_ascii=False, default=str)
    return web.Response(text=text, content_type="application/json")
