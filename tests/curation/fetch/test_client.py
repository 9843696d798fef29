"""The client against servers of its own: TLS, kept connections, what it sends, how many it opens."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from curation.fetch.client import Client, Fetched
from curation.fetch.urls import parse_url
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from tests.support.hostile_pictures import jpeg
from tests.support.hostile_server import DOMAIN, Exchange, HostileServer


async def picture(e: Exchange) -> None:
    await e.answer(200, jpeg())


def config(server: HostileServer, **changes: Any) -> DownloadConfig:
    wanted = {
        "connect_to": server.connect_to,
        "allow_addresses": ("127.0.0.0/8",),
        "timeout_s": 60.0,
        "connect_timeout_s": 60.0,
        "first_byte_timeout_s": 60.0,
    }
    return DownloadConfig(**(wanted | changes))


def ask(config: DownloadConfig, urls: list[str], workers: int = 1) -> list[Fetched]:
    async def main() -> list[Fetched]:
        found: list[Fetched] = []
        left = iter(urls)

        async def work(client: Client) -> None:
            for url in left:
                found.append(await client.ask(parse_url(url)))

        async with Client(config) as client:
            await asyncio.gather(*(work(client) for _ in range(workers)))
        return found

    return asyncio.run(main())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for *.hostile.test that signs itself, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    both = folder / "both.pem"
    names = f"subjectAltName=DNS:*.{DOMAIN}"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    made += ["-addext", names, "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(made, check=True, capture_output=True)
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


def test_tls_with_a_trusted_certificate_and_without(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HostileServer({"a": picture}, {}, context) as server:
        urls = [f"https://a.{DOMAIN}/1.jpg", f"https://a.{DOMAIN}/2.jpg"]
        untrusted = ask(config(server), urls)
        assert [one.status for one in untrusted] == [Status.TLS, Status.TLS]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusted = ask(config(server), urls)
        assert [(one.status, one.body) for one in trusted] == [(Status.OK, jpeg())] * 2
        assert ask(config(server), [f"https://a.{DOMAIN}./1.jpg"])[0].status is Status.OK
        wrong_name = ask(config(server, connect_to={"*": f"127.0.0.1:{server.port}"}), ["https://b.example/1.jpg"])
        assert wrong_name[0].status is Status.TLS


def test_connections_are_kept() -> None:
    seen: set[tuple[str, int]] = set()

    async def serve(e: Exchange) -> None:
        seen.add(e.writer.get_extra_info("peername"))
        await e.answer(404 if e.path.endswith("7.jpg") else 200, jpeg())

    with HostileServer({"a": serve}, {}) as server:
        found = ask(config(server), [f"http://a.{DOMAIN}/{n}.jpg" for n in range(50)])
        assert sum(one.status is Status.OK for one in found) == 45
        assert len(seen) == 1
        seen.clear()
        ask(config(server), [f"http://a.{DOMAIN}/{n}.jpg" for n in range(50)], workers=5)
        assert len(seen) <= 5


def test_a_connection_that_the_server_gave_up_is_no_failure() -> None:
    async def serve(e: Exchange) -> None:
        await e.answer(200, jpeg(), Connection="keep-alive")
        e.keep = e.times % 2 == 0

    with HostileServer({"a": serve}, {}) as server:
        found = ask(config(server), [f"http://a.{DOMAIN}/1.jpg"] * 20)
        assert [one.status for one in found] == [Status.OK] * 20


def test_robots_are_read_once_even_when_many_ask_at_once() -> None:
    async def rules(e: Exchange) -> None:
        await asyncio.sleep(0.05)
        await e.answer(200, b"User-agent: *\nDisallow: /no\n")

    with HostileServer({"a": picture}, {"a": rules}) as server:
        urls = [f"http://a.{DOMAIN}/{'no' if n % 2 else 'yes'}{n}" for n in range(40)]
        found = ask(config(server), urls, workers=20)
        assert server.asked["a", "/robots.txt"] == 1
        assert sorted(one.status for one in found) == [Status.OK] * 20 + [Status.ROBOTS] * 20
        found = ask(config(server, obey_robots=False), urls)
        assert server.asked["a", "/robots.txt"] == 1
        assert {one.status for one in found} == {Status.OK}


def test_who_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with HostileServer({"a": picture}, {}) as server:
        ask(config(server, contact="mailto:me@lab.example", formats=("png",)), [f"http://a.{DOMAIN}/"])
        lines = server.heads["a"].split("\r\n")
    assert lines[:2] == ["GET / HTTP/1.1", f"Host: a.{DOMAIN}"]
    agent = next(line for line in lines if line.startswith("User-Agent: "))
    assert "clip-curation/" in agent and "mailto:me@lab.example" in agent
    assert "Accept: image/png, */*;q=0.1" in lines
