"""The demo's web: what each fault answers, seen by a plain client, and how our own engine ends each."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation.demo import faults, metadata
from curation.demo.web import CLOSED, LOOPBACK, Web, picture_bytes
from curation.download.unit import download_unit, resolve_opt_out_paths
from curation.recipe.config import load_recipe
from curation.schema import SAMPLES, Status, uid
from curation.settings import to_dict
from curation.storage import Root
from tests.support.demo_web_client import NAME, get, get_fault, open_image


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web() as started:
        yield started


def test_pictures_and_copies_come_under_any_host(web: Web) -> None:
    data = picture_bytes(NAME)
    assert get(web, f"/pictures/{NAME}", "anything.example")[2] == data
    assert get(web, f"/copies/exact/{NAME}")[2] == data
    width, height = open_image(data).size
    assert open_image(get(web, f"/copies/shrunk/{NAME}")[2]).size == (width * 3 // 4, height * 3 // 4)
    assert open_image(get(web, f"/copies/cropped/{NAME}")[2]).size < (width, height)
    recompressed = get(web, f"/copies/recompressed/{NAME}")[2]
    assert recompressed != data and open_image(recompressed).size == (width, height)
    for path in (f"/copies/other/{NAME}", "/pictures/other.jpg", f"/faults/other/{NAME}", "/elsewhere"):
        assert get(web, path)[0] == 404


def test_robots_close_one_host_only(web: Web) -> None:
    assert "Disallow: /" in get(web, "/robots.txt", CLOSED)[2].decode()
    assert get(web, "/robots.txt", "open.example")[0] == 404
    assert faults.FAULTS["disallowed"].host == CLOSED


def leave_in_the_middle(web: Web, name: str) -> int:
    """Bytes read of a fault's answer before the connection is reset."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=60) as client:
        client.sendall(f"GET /faults/{name}/{NAME} HTTP/1.1\r\nHost: www.faults.example\r\n\r\n".encode())
        num_bytes = 0
        while num_bytes < (3_000_000 if name == "endless" else 200):
            num_bytes += len(client.recv(1 << 20))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return num_bytes


def test_whoever_leaves_in_the_middle_is_not_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body without end goes past any limit, the dripping one is slow; resetting both leaves the log empty."""
    monkeypatch.setattr(faults, "DRIP_S", 0.005)
    with caplog.at_level(logging.DEBUG, "aiohttp"), Web() as web:
        assert leave_in_the_middle(web, "endless") >= 3_000_000
        started = time.monotonic()
        leave_in_the_middle(web, "dripping")
        assert time.monotonic() - started > 0.05  # 200 bytes with the header: dozens of drips
        time.sleep(0.2)
        assert get_fault(web, "missing")[0] == 404
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_requests_are_counted() -> None:
    with Web() as web:
        get(web, f"/pictures/{NAME}")
        get(web, "/robots.txt")
        get_fault(web, "gone")
        assert web.num_requests == 3


def test_our_engine_ends_every_fault_as_expected(root: Root, web: Web) -> None:
    """All of the demo's faulty rows, and a picture for comparison; those that never end, in a unit with little time."""
    pairs = [(row["URL"], row["TEXT"], None) for row in metadata.laion_rows()]
    pairs += [(row["url"], row["text"], row["sha256"]) for row in metadata.commonpool_rows()]
    expected = metadata.expected_statuses()
    rows = {uid(url, text): sample(url, text, sha256) for url, text, sha256 in pairs if uid(url, text) in expected}
    assert set(rows) == set(expected)
    prompt = {key for key, status in expected.items() if status is not Status.TIMEOUT}
    overrides = [f'download.connect_to={{"{host}" = "{place}"}}' for host, place in web.connect_to.items()]
    found = []
    for unit, timeout_s, keys in (("u-000000", 60.0, prompt), ("u-000001", 1.0, set(rows) - prompt)):
        ordered = [rows[key] for key in sorted(keys)]
        root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(ordered, SAMPLES))
        config = load_recipe("demo", [*overrides, f"download.timeout_s={timeout_s}"])
        assert to_dict(config)["download"]["allow_addresses"] == [LOOPBACK]
        download_unit(root, unit, resolve_opt_out_paths(config), 0)
        found += root.read_parquet(f"downloads/{unit}.parquet").to_pylist()
    assert {row["uid"]: row["status"] for row in found} == {key: str(status) for key, status in expected.items()}


def sample(url: str, text: str | None, sha256: str | None) -> dict[str, Any]:
    known = {"uid": uid(url, text), "url": url, "caption": text, "source": "demo", "claimed_sha256": sha256}
    return {**dict.fromkeys(SAMPLES.names), **known, "domain": Path(url).parts[1] if "//" in url else ""}
