"""Who may ask: whoever has the token, through a name of this machine; and what the page may do in a browser.

A page of another site in the same browser can send requests to 127.0.0.1, and by DNS rebinding read the answers.
It knows neither the token, nor can it choose the Host header, which names the host that the browser thinks it talks to.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HOSTS = ("127.0.0.1", "localhost")
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def make_guard(token: str) -> Middleware:
    """A middleware that answers 403 to requests for another host, or whose path does not begin with `token`."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.path.lstrip("/").partition("/")[0]
        host = request.host.rpartition(":")[0] or request.host
        if host not in HOSTS or not hmac.compare_digest(given.encode(), token.encode()):
            response: web.StreamResponse = web.Response(
                status=403, text="This page needs the whole address that `curate browse` printed, with its token.\n"
            )
        else:
            response = await _answer(request, handler)
        response.headers.update(HEADERS)
        return response

    return guard


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.Response(status=error.status, text=f"{error.reason}\n")
