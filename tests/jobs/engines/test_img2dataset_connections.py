"""Connections of the guard: one look-up for many threads, turns of a host, allowed addresses, and deadlines."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from typing import Any

import pytest

from curation.fetch.clock import Clock
from curation.fetch.urls import parse_url
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from jobs.engines.img2dataset_connections import Connections, OncePerKey
from jobs.engines.img2dataset_refusals import RefusedError
from tests.support.hostile_server import DOMAIN, Exchange, HostileServer

HOST = f"http://a.{DOMAIN}/"


def connections(server: HostileServer, **options: Any) -> Connections:
    usual = {"connect_to": server.connect_to, "allow_addresses": ("127.0.0.0/8",), "timeout_s": 60.0}
    return Connections(DownloadConfig(**(usual | options)))


def test_many_threads_share_one_result() -> None:
    once, asked, started = OncePerKey[int](), [], threading.Event()

    def compute() -> int:
        asked.append(1)
        started.wait(30)
        return 7

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(once.get("key", compute))) for _ in range(5)]
    for thread in threads:
        thread.start()
    started.set()
    for thread in threads:
        thread.join()
    assert (results, asked) == ([7] * 5, [1])
    assert once.get("other", lambda: 8) == 8


@pytest.mark.parametrize(("final", "num_computed"), [(True, 1), (False, 2)])
def test_only_a_final_failure_is_remembered(final: bool, num_computed: int) -> None:
    once, asked = OncePerKey[int](), []

    def fail() -> int:
        asked.append(1)
        raise RefusedError(Status.DNS, "no such name", final=final)

    for _ in range(2):
        with pytest.raises(RefusedError, match="no such name"):
            once.get("key", fail)
    assert len(asked) == num_computed


def test_a_host_has_no_more_connections_than_the_recipe_says() -> None:
    open_now, most, lock = [0], [0], threading.Lock()

    async def answer(e: Exchange) -> None:
        await asyncio.sleep(0.05)
        await e.answer(200, b"x")

    with HostileServer({"a": answer}, {}) as server:
        made = connections(server, max_per_host=2)

        def fetch() -> None:
            with made.open(parse_url(HOST), Clock(60.0)) as connection:
                with lock:
                    open_now[0] += 1
                    most[0] = max(most[0], open_now[0])
                connection.request("GET", "/", headers={"Host": f"a.{DOMAIN}"})
                assert connection.getresponse().read() == b"x"
                with lock:
                    open_now[0] -= 1

        threads = [threading.Thread(target=fetch) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most[0] == 2


def test_an_address_that_is_not_allowed_is_not_connected_to() -> None:
    with HostileServer({}, {}) as server:
        made = connections(server, allow_addresses=())
        with pytest.raises(RefusedError) as refused, made.open(parse_url(HOST), Clock(60.0)):
            pass
    assert (refused.value.status, refused.value.detail) == (Status.BLOCKED_ADDRESS, "127.0.0.1")


def test_a_name_is_looked_up_once_and_its_failure_says_whether_it_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fail(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME if host.startswith("gone") else socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    made = Connections(DownloadConfig())
    for url, final in (("http://gone.example/", True), ("http://busy.example/", False)):
        for _ in range(2):
            with pytest.raises(RefusedError) as refused, made.open(parse_url(url), Clock(60.0)):
                pass
            assert refused.value.status is Status.DNS and refused.value.final is final
            assert (refused.value.wait_s is None) is final
    assert asked == ["gone.example", "busy.example", "busy.example"]


def test_a_body_that_drips_is_cut_off_at_the_deadline() -> None:
    """Each byte comes long before the socket's own timeout; only the deadline ends the body."""

    async def drip(e: Exchange) -> None:
        await e.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await e.send(b"x")
            await asyncio.sleep(0.02)

    with HostileServer({"a": drip}, {}) as server:
        made = connections(server)
        ended = pytest.raises((http.client.HTTPException, OSError))
        with ended, made.open(parse_url(HOST), Clock(0.5)) as connection:
            connection.request("GET", "/", headers={"Host": f"a.{DOMAIN}"})
            connection.getresponse().read()
