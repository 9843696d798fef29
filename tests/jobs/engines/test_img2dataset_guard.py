"""The guard around img2dataset's fetching, without img2dataset: threads that open URLs of a hostile web."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation.download.opt_out import OptOut, load_opt_out
from curation.fetch import clock, politeness
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from jobs.engines import img2dataset_connections
from jobs.engines.img2dataset_guard import WebGuard
from jobs.engines.img2dataset_refusals import RefusedError
from tests.support.hostile_pictures import jpeg
from tests.support.hostile_server import DOMAIN, Exchange, HostileServer, Serve

PICTURE = jpeg()
CLOSED = b"User-agent: *\nDisallow: /\n"


async def picture(e: Exchange) -> None:
    await e.answer(200, PICTURE)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(politeness, "BACKOFF_S", 0.02)
    monkeypatch.setattr(img2dataset_connections, "TEMPORARY_TTL_S", 0.02)


def guard(server: HostileServer, opt_out: OptOut | None = None, **options: Any) -> WebGuard:
    usual = {"connect_to": server.connect_to, "allow_addresses": ("127.0.0.0/8",), "timeout_s": 60.0}
    return WebGuard(DownloadConfig(**(usual | options)), opt_out or OptOut())


def ends(guard: WebGuard, urls: list[str]) -> dict[str, str]:
    """How each URL ends; all are asked for at once, as img2dataset does."""
    found = {}

    def fetch(url: str) -> None:
        try:
            guard.open(urllib.request.Request(url))
            found[url] = "ok"
        except RefusedError as error:
            found[url] = error.status.value

    threads = [threading.Thread(target=fetch, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("options", [{"max_per_host": 1}, {"host_interval_s": 0.1}])
def test_waiting_for_a_turn_is_not_the_hosts_time(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen pictures of 10 s one after the other, with a deadline of 80 s each, on a clock that the server moves."""
    passed_s = [0.0]
    monkeypatch.setattr(clock, "now", lambda: passed_s[0])

    async def slow(e: Exchange) -> None:
        passed_s[0] += 10.0
        await e.answer(200, PICTURE)

    with HostileServer({"s": slow}, {}) as server:
        found = ends(guard(server, timeout_s=80.0, **options), [f"http://s.{DOMAIN}/{i}.jpg" for i in range(15)])
    assert Counter(found.values()) == {"ok": 15}


async def hangs(e: Exchange) -> None:
    await asyncio.sleep(30)


async def resets(e: Exchange) -> None:
    e.reset()


async def resets_once(e: Exchange) -> None:
    if e.times == 0:
        e.reset()
    else:
        await e.answer(200, b"User-agent: *\nAllow: /\n")


async def gzipped(e: Exchange) -> None:
    await e.answer(200, gzip.compress(CLOSED), Content_Encoding="gzip")


async def torn(e: Exchange) -> None:
    await e.raw("HTTP/1.1 200 OK\nContent-Length: 5000", CLOSED)


async def fails(e: Exchange) -> None:
    await e.answer(500)


async def gone(e: Exchange) -> None:
    await e.answer(404)


async def to_nowhere(e: Exchange) -> None:
    await e.answer(302, b"", Location="ftp://a.example/robots.txt")


async def round_and_round(e: Exchange) -> None:
    await e.answer(302, b"", Location="/robots.txt")


@pytest.mark.parametrize(
    "rules, status",
    [
        (hangs, Status.TIMEOUT),
        (resets, Status.DISCONNECTED),
        (resets_once, Status.OK),
        (gzipped, Status.ROBOTS),
        (torn, Status.TRUNCATED),
        (fails, Status.HTTP_5XX),
        (gone, Status.OK),
        (to_nowhere, Status.OK),
        (round_and_round, Status.OK),
    ],
)
def test_robots_txt_is_what_it_is_to_our_own_client(rules: Serve, status: Status) -> None:
    with HostileServer({"a": picture}, {"a": rules}) as server:
        watched = guard(server, timeout_s=1.0 if status is Status.TIMEOUT else 60.0)
        urls = [f"http://a.{DOMAIN}/{i}.jpg" for i in range(3)]
        assert set(ends(watched, urls).values()) == {status}
        asked = {path for label, path in server.asked if path != "/robots.txt"}
        assert bool(asked) is (status is Status.OK)
        before = server.asked["a", "/robots.txt"]
        assert set(ends(watched, urls).values()) == {status}
        assert server.asked["a", "/robots.txt"] == before, "read once, whatever it said"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """`notnow` cannot be looked up the first time, `nowhere` never; how often each was."""
    looked_up: Counter[str] = Counter()
    system = socket.getaddrinfo

    def fake(host: str, *args: Any, **options: Any) -> Any:
        looked_up[host] += 1
        if host == "nowhere.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host == "notnow.example" and looked_up[host] == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return system("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    yield looked_up


def test_a_name_is_looked_up_again_when_only_now_it_has_no_address(names: Counter[str]) -> None:
    with HostileServer({"d": picture}, {}) as server:
        watched = guard(server, connect_to={}, obey_robots=False)
        for host, then in (("notnow", "ok"), ("nowhere", "dns")):
            url = f"http://{host}.example:{server.port}/d/1.jpg"
            assert ends(watched, [url]) == {url: "dns"}
            assert ends(watched, [url]) == {url: then}
    assert (names["notnow.example"], names["nowhere.example"]) == (2, 1)


def test_pictures_are_refused_by_sha256_and_decoded_from_gzip(tmp_path: Path) -> None:
    async def coded(e: Exchange) -> None:
        await e.answer(200, gzip.compress(PICTURE), Content_Encoding="gzip")

    listed = tmp_path / "list.txt"
    with HostileServer({"g": coded}, {}) as server:
        url = f"http://g.{DOMAIN}/1.jpg"
        assert ends(guard(server), [url]) == {url: "ok"}
        listed.write_text(hashlib.sha256(PICTURE).hexdigest())
        assert ends(guard(server, load_opt_out([str(listed)], tmp_path)), [url]) == {url: "opted_out"}


def test_the_dot_at_the_end_of_a_name_is_no_part_of_it() -> None:
    with HostileServer({"p": picture}, {}) as server:
        assert set(ends(guard(server), [f"http://p.{DOMAIN}./1.jpg"]).values()) == {"ok"}


def test_who_asks_to_be_left_alone_for_long_is_not_asked_again() -> None:
    async def busy(e: Exchange) -> None:
        await e.answer(429, b"", Retry_After="3600")

    with HostileServer({"b": busy}, {}) as server:
        watched, url = guard(server), f"http://b.{DOMAIN}/1.jpg"
        assert [ends(watched, [url])[url] for _ in range(3)] == ["http_429"] * 3
        assert server.asked["b", "/1.jpg"] == 1
