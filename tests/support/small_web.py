"""A few hosts on one loopback port, whose answers a test decides, and metadata that points at them."""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.small_root import picture

Answer = tuple[int, bytes]
Web = Callable[[str, str, int], Answer]
"""(host, path, how often it was asked before) → status and body."""


def pictures(host: str, path: str, asked: int) -> Answer:
    """Every path `/N.jpg` is a picture of its own; every tenth is gone."""
    number = int(path.strip("/").partition(".")[0] or 0)
    return (404, b"") if number % 10 == 9 else (200, picture(number, 40 + number % 24, 32))


@contextmanager
def serve(web: Web) -> Iterator[tuple[int, Counter[tuple[str, str]]]]:
    """Serve `web` until the block ends; the port, and how often each (host, path) was asked."""
    asked: Counter[tuple[str, str]] = Counter()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host = self.headers["Host"].partition(":")[0]
            before = asked[host, self.path]
            asked[host, self.path] += 1
            status, body = (404, b"") if self.path == "/robots.txt" else web(host, self.path, before)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()


def recipe(folder: Path, port: int, num_rows: int, num_hosts: int = 12, rows_per_unit: int = 20) -> Path:
    """A recipe over `num_rows` rows on `num_hosts` host names, of which the first has a third of the rows."""
    hosts = [0 if i % 3 == 0 else i % num_hosts for i in range(num_rows)]
    rows = [
        {"URL": f"http://h{host}.site{host}.test/{i}.jpg", "TEXT": f"caption {i}", "similarity": 0.3}
        for i, host in enumerate(hosts)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
    file = folder / "recipe.toml"
    file.write_text(f"""
        [[sources]]
        name = "laion"
        format = "laion2b"
        paths = ["part-0.parquet"]
        [download]
        image_size = 32
        retries = 0
        timeout_s = 60
        first_byte_timeout_s = 60
        connect_timeout_s = 60
        allow_addresses = ["127.0.0.0/8"]
        connect_to = {{"*.test" = "127.0.0.1:{port}"}}
        num_rows_per_unit = {rows_per_unit}
        [filters]
        blur = {{}}
        [rules]
        wide = "width >= 45"
        [pack]
        num_samples_per_shard = 50
    """)
    return file
