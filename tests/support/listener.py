"""A web server on loopback that counts its requests and serves one file under every path."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Listener:
    """`with Listener(data) as server:` → `server.url`, `server.requests` (paths), `server.redirect` (a URL or "").

    With `knows_ranges=False` every answer is the whole file.
    """

    def __init__(self, data: bytes = b"", knows_ranges: bool = True) -> None:
        self.data, self.redirect, self.knows_ranges = data, "", knows_ranges
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Listener:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                if server.redirect:
                    self.send_response(302)
                    self.send_header("Location", server.redirect)
                    self.end_headers()
                    return
                header = self.headers.get("Range", "") if server.knows_ranges else ""
                wanted = header.removeprefix("bytes=").partition("-")
                start, stop = int(wanted[0] or 0), int(wanted[2] or len(server.data) - 1) + 1
                self.send_response(206 if wanted[1] else 200)
                self.send_header("Content-Length", str(len(server.data[start:stop])))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(server.data[start:stop])

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                return

        return Handler
