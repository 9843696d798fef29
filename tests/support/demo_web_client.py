"""A plain client of the demo's web."""

from __future__ import annotations

import http.client
import io

from PIL import Image

from curation.demo.web import Web, pictures

NAME = pictures()[0][0]
"""The picture that the tests of faults ask for."""
Answer = tuple[int, dict[str, str], bytes]


def get(web: Web, path: str, host: str = "www.faults.example") -> Answer:
    """Status, headers and body of `path` as `host` answers."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def get_fault(web: Web, name: str, query: str = "") -> Answer:
    """The answer of the fault `name` for the picture NAME."""
    return get(web, f"/faults/{name}/{NAME}{query}")


def open_image(data: bytes) -> Image.Image:
    """The picture in `data`."""
    return Image.open(io.BytesIO(data))
