"""A real S3 API on loopback, and a server in front of it that fails in the way it is told to."""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from curation.storage import Root

ERRORS = {
    "503": b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
    "403": b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
}
CREDENTIALS = {"key": "testing", "secret": "testing"}


def options(endpoint: str, **more: Any) -> dict[str, Any]:
    """Storage options of a root on the server at `endpoint`; its client tries each request twice."""
    config = {"retries": {"max_attempts": 2, "mode": "standard"}, "connect_timeout": 60, "read_timeout": 60}
    return {**CREDENTIALS, "client_kwargs": {"endpoint_url": endpoint}, "config_kwargs": config, **more}


@contextlib.contextmanager
def s3(bucket: str = "curation") -> Iterator[str]:
    """The endpoint of a server with an empty `bucket`."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        fs = Root(f"s3://{bucket}", **options(endpoint)).fs
        fs.mkdir(bucket)
        yield endpoint
        # The servers of one process share what they hold.
        fs.rm(bucket, recursive=True)
    finally:
        server.stop()


class Moody:
    """A server that passes GET and HEAD on to `behind`, or fails by `way` where `down` or `fail_next` say so."""

    def __init__(self, behind: str) -> None:
        self.behind, self.fail_next, self.down = behind, 0, False
        self.num_refused = 0
        self.only = ""
        """Only requests for paths that contain this fail."""
        self.way = "503"
        """How they do: 503, 403, "reset" (the connection is closed) or "short" (the body ends after a half)."""
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Moody:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def refuses(self, path: str) -> bool:
        with self._lock:
            refused = self.only in path and (self.down or self.fail_next > 0)
            self.fail_next -= refused and not self.down
            self.num_refused += refused
        return refused

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        moody = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                refused = moody.refuses(self.path)
                if refused and moody.way == "reset":
                    self.connection.close()
                    self.close_connection = True
                    return
                if refused and moody.way != "short":
                    self._answer(int(moody.way), {"Content-Type": "application/xml"}, ERRORS[moody.way])
                    return
                kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                request = urllib.request.Request(moody.behind + self.path, headers=kept, method=self.command)
                try:
                    with urllib.request.urlopen(request) as found:
                        self._answer(found.status, dict(found.headers), found.read(), is_cut=refused)
                except urllib.error.HTTPError as error:
                    self._answer(error.code, dict(error.headers), error.read())

            do_HEAD = do_GET

            def _answer(self, status: int, headers: dict[str, str], body: bytes, is_cut: bool = False) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "date", "server", "content-length"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if is_cut else body)
                self.close_connection = is_cut

            def log_message(self, *_: object) -> None:
                return

        return Handler
