"""A real S3 API on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from curation.storage import Root

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
