"""A server in front of an S3 API that passes requests on, and fails where a subclass says so.

`Shaky` fails as stores under load do: what it does is decided by its seed, the request, and how often it was asked.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

ERRORS = {
    "503": b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
    "403": b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
}
NO_UPLOAD = b"<Error><Code>NoSuchUpload</Code><Message>The specified upload does not exist.</Message></Error>"
UNDELETED = b"<Error><Key>%s</Key><Code>InternalError</Code><Message>Please try again.</Message></Error>"
HOP = ("connection", "transfer-encoding", "date", "server", "content-length", "keep-alive")
FAULTS = {
    "GET": ("503", "reset", "slow", "short"),
    "HEAD": ("503", "reset", "slow"),
    "PUT": ("503", "reset", "slow", "lost"),
    "POST": ("503", "reset", "slow", "lost"),
    "DELETE": ("503", "reset", "slow", "lost"),
}
DELETION = ("undeleted", *FAULTS["POST"])
"""What happens to the request that deletes many objects; `undeleted` answers 200 and deletes none of them."""
MAX_IN_A_ROW = 2
_RANDOM = re.compile(r"(?<=uploadId=)[^&]+|(?<=continuation-token=)[^&]+|[0-9a-f]{32}")


class Proxy:
    """`endpoint` stands for the server at `behind`, within the `with`.

    An upload that was completed is none any more, as stores other than AWS and moto have it.
    """

    slow_s = 0.3

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.completed: set[str] = set()
        """Paths of uploads in parts that ended."""
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _make_handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def choose_fault(self, method: str, path: str) -> str:
        """How the next request for `path` fails; empty when it does not.

        503 and 403 are answers. "reset" closes the connection before the request is passed on, "lost" after that.
        "short" ends the body after a half, "slow" waits, "undeleted" says of each object that it was not deleted.
        """
        raise NotImplementedError


class Moody(Proxy):
    """Fails in one `way` where `down` or `fail_next` say so."""

    def __init__(self, behind: str) -> None:
        super().__init__(behind)
        self.fail_next, self.down = 0, False
        self.num_refused = 0
        self.only = ""
        """Only requests for paths that contain this fail."""
        self.methods = tuple(FAULTS)
        self.way = "503"

    def choose_fault(self, method: str, path: str) -> str:
        with self._lock:
            refused = self.only in path and method in self.methods and (self.down or self.fail_next > 0)
            self.fail_next -= refused and not self.down
            self.num_refused += refused
        return self.way if refused else ""


class Shaky(Proxy):
    """Fails a `share` of all requests, the same one never more than twice in a row."""

    def __init__(self, behind: str, seed: int, share: float) -> None:
        super().__init__(behind)
        self.seed, self.share = seed, share
        self.made: Counter[str] = Counter()
        """How many requests failed, by method and way."""
        self.num_asked = 0
        self._asked: Counter[tuple[str, str]] = Counter()
        self._in_a_row: Counter[tuple[str, str]] = Counter()

    def choose_fault(self, method: str, path: str) -> str:
        key = (method, _RANDOM.sub("*", path))
        with self._lock:
            self.num_asked += 1
            self._asked[key] += 1
            chance = zlib.crc32(repr((self.seed, key, self._asked[key])).encode())
            if self._in_a_row[key] >= MAX_IN_A_ROW or chance % 10_000 >= self.share * 10_000:
                self._in_a_row[key] = 0
                return ""
            self._in_a_row[key] += 1
            ways = DELETION if _is_deletion(method, path) else FAULTS[method]
            way = ways[chance // 10_000 % len(ways)]
            self.made[f"{method} {way}"] += 1
            return way


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _is_deletion(method: str, path: str) -> bool:
    return method == "POST" and "delete" in urlsplit(path).query.split("&")


def _make_handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def relay(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            way = proxy.choose_fault(self.command, self.path)
            if way in ERRORS:
                self._answer(int(way), {"Content-Type": "application/xml"}, ERRORS[way])
            elif way == "reset":
                self._hang_up()
            elif self.path in proxy.completed and self.command == "POST":
                self._answer(404, {"Content-Type": "application/xml"}, NO_UPLOAD)
            elif way == "undeleted":
                keys = re.findall(rb"<Key>(.*?)</Key>", sent)
                said = b"<DeleteResult>" + b"".join(UNDELETED % key for key in keys) + b"</DeleteResult>"
                self._answer(200, {"Content-Type": "application/xml"}, said)
            else:
                time.sleep(proxy.slow_s if way == "slow" else 0)
                status, headers, body = self._ask(sent)
                if self.command == "POST" and "uploadId=" in self.path and status == 200:
                    proxy.completed.add(self.path)
                if way == "lost":
                    self._hang_up()
                else:
                    self._answer(status, headers, body, is_cut=way == "short")

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay

        def _ask(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
            place = urlsplit(proxy.behind)
            connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
            kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "expect")}
            try:
                connection.request(self.command, self.path, body=sent or None, headers=kept)
                answer = connection.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            finally:
                connection.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes, is_cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            length = headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if is_cut else body)
            self.close_connection = self.close_connection or is_cut

        def _hang_up(self) -> None:
            self.connection.close()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    return Handler
