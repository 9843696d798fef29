"""The native engine: which rows are asked for again, whom a wait concerns, and when a picture is decoded."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from curation.download.unit import download_unit
from curation.fetch.schedule import MAX_REFUSALS
from curation.recipe.config import DownloadConfig
from curation.schema import SAMPLES, Status, uid
from curation.storage import Root
from tests.support.hostile_pictures import jpeg
from tests.support.hostile_server import DOMAIN, Exchange, HostileServer
from tests.support.picture_unit import (
    UNIT,
    answer_picture,
    download_config,
    read_downloads,
    serve_pictures,
    write_samples,
)


@pytest.fixture
def config(server: HostileServer) -> DownloadConfig:
    return download_config(server)


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with serve_pictures() as running:
        yield running


def test_a_row_that_breaks_our_own_code_ends_as_internal_error(
    tmp_path: Path, config: DownloadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_samples(tmp_path, 6)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("curation.fetch.client.Client.ask", broken)
    download_unit(root, UNIT, config)
    assert {(row["status"], row["detail"]) for row in read_downloads(root)} == {
        (Status.INTERNAL_ERROR, "ZeroDivisionError: a bug")
    }


def test_pictures_that_stay_are_not_decoded_when_nothing_is_measured(
    tmp_path: Path, config: DownloadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_samples(tmp_path)
    monkeypatch.setattr("curation.images.decoder.MODULE", "no.such.module")
    download_unit(root, UNIT, DownloadConfig(**(vars(config) | {"resize_mode": "no", "measure": False})))
    stored = [row for row in read_downloads(root) if row["status"] == "ok"]
    assert len(stored) == 24
    assert all(row["sha256"] == row["stored_sha256"] and row["phash"] is None and row["width"] for row in stored)


def test_a_host_that_only_says_later_does_not_hold_the_unit(tmp_path: Path) -> None:
    """Sixty rows a host, each of which may try three times: most are not even tried once."""

    async def busy(e: Exchange) -> None:
        await e.answer(429, b"", Retry_After="0")

    with HostileServer({"a": busy, "b": answer_picture, "c": busy}, {}) as server:
        root = write_samples(tmp_path, 180)
        download_unit(root, UNIT, DownloadConfig(connect_to=server.connect_to, allow_addresses=("127.0.0.0/8",)))
        tried = sum(times for (host, path), times in server.asked.items() if host == "a" and path != "/robots.txt")
    assert Counter(row["status"] for row in read_downloads(root)) == {"http_429": 120, "ok": 48, "http_404": 12}
    assert MAX_REFUSALS <= tried <= MAX_REFUSALS + DownloadConfig().max_per_host


def redirects(folder: Path, number: int) -> Root:
    """A unit whose rows all stand on host `a`."""
    root, found = Root(folder), []
    for n in range(number):
        url = f"http://a.{DOMAIN}/{n}.jpg"
        found.append(dict.fromkeys(SAMPLES.names) | {"uid": uid(url, None), "url": url, "domain": DOMAIN})
    found.sort(key=lambda row: str(row["uid"]))
    root.publish_parquet(f"samples/{UNIT}.parquet", pa.Table.from_pylist(found, schema=SAMPLES))
    return root


async def to_b(e: Exchange) -> None:
    await asyncio.sleep(0.02)
    await e.answer(302, b"", Location=f"http://b.{DOMAIN}{e.path}")


def test_a_host_that_only_redirects_lead_to_is_one_host(tmp_path: Path, config: DownloadConfig) -> None:
    """No row is there when the next one comes: robots.txt is asked for once all the same, and one connection kept."""
    root, connections = redirects(tmp_path, 20), set()

    async def there(e: Exchange) -> None:
        connections.add(e.writer.get_extra_info("peername"))
        await e.answer(200, jpeg())

    with HostileServer({"a": to_b, "b": there}, {}) as server:
        download_unit(root, UNIT, replace(config, connect_to=server.connect_to, max_per_host=1))
        assert server.asked["b", "/robots.txt"] == 1
    assert len(connections) == 1
    assert {row["status"] for row in read_downloads(root)} == {"ok"}


@pytest.mark.parametrize("code, status", [(429, "http_429"), (503, "http_5xx")])
def test_who_asks_for_more_than_a_minute_is_left_for_a_later_round(
    tmp_path: Path, config: DownloadConfig, code: int, status: str
) -> None:
    async def tomorrow(e: Exchange) -> None:
        await e.answer(code, b"", Retry_After="43200")

    root = redirects(tmp_path, 40)
    with HostileServer({"a": tomorrow}, {}) as server:
        download_unit(root, UNIT, replace(config, connect_to=server.connect_to, retries=2))
        assert sum(times for (_, path), times in server.asked.items() if path != "/robots.txt") == 1
    assert {(row["status"], row["detail"]) for row in read_downloads(root)} == {
        (status, f"HTTP {code}, Retry-After 43200 s")
    }


def test_retry_after_holds_for_rows_that_are_redirected_there(tmp_path: Path, config: DownloadConfig) -> None:
    times: list[float] = []

    async def busy(e: Exchange) -> None:
        times.append(time.monotonic())
        await e.answer(429, b"", Retry_After="1")

    root = redirects(tmp_path, 2)
    with HostileServer({"a": to_b, "b": busy}, {}) as server:
        download_unit(root, UNIT, replace(config, connect_to=server.connect_to, max_per_host=1))
    assert len(times) == 2 and times[1] - times[0] > 0.9
