"""Who is answered and who is not, and how the command ends."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browse_server import Served, serve_browse, start_browse
from tests.support.small_root import SmallRoot

POLICY = "default-src 'self'"


@pytest.fixture(scope="module")
def served(made: SmallRoot) -> Iterator[Served]:
    with serve_browse(made.root) as found:
        yield found


def request(url: str, *, host: str | None = None, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer, also of a refusal."""
    headers = {} if host is None else {"Host": host}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=120) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_the_page_and_its_files_come_with_a_policy_that_allows_this_server_alone(served: Served) -> None:
    for path in ("", "static/app.js", "static/browse.css", "static/preact.js", "static/LICENSE-preact.txt"):
        status, headers, body = request(served.address + path)
        assert status == 200 and body
        assert headers["Content-Security-Policy"].startswith(POLICY) and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"


def test_whoever_lacks_the_token_gets_nothing(served: Served) -> None:
    token = served.address.split("/")[3]
    for path in ("/", "/static/app.js", "/api/summary", f"/{token[:-1]}/", f"/{token}x/", f"/x/{token}/", "/ü/"):
        status, headers, body = request(served.origin + urllib.request.quote(path))
        assert status == 403 and b"<" not in body, path
        assert headers["Content-Security-Policy"].startswith(POLICY)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example:1", "", "[::1]:1", "0.0.0.0"]
)
def test_a_browser_that_thinks_it_talks_to_another_host_gets_nothing(served: Served, host: str) -> None:
    assert request(served.address, host=host)[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:80", "localhost"])
def test_the_port_may_be_a_forwarded_one(served: Served, host: str) -> None:
    assert request(served.address, host=host)[0] == 200


def test_only_files_of_the_page_are_sent(served: Served) -> None:
    for path in ("static/..%2fserver.py", "static/../server.py", "static/none.js", "none", "static/%2e%2e%2fguard.py"):
        assert request(served.address + path)[0] == 404


def test_refusals_are_sentences_in_an_answer_that_no_browser_reports_as_a_fault(served: Served) -> None:
    for path, said in (
        ("api/wall?where=drop+table+samples", "only reads"),
        ("api/nothing", "no question"),
        ("api/picture?uid=none", "no row with the uid"),
        (f"api/wall?where={'x' * 6_000}", "DuckDB"),
    ):
        status, _, body = request(served.address + path)
        assert status == 200 and said in json.loads(body)["error"], path
    assert "no JSON" in json.loads(request(f"{served.address}api/wall", body=b"{")[2])["error"]
    assert "JSON object" in json.loads(request(f"{served.address}api/wall", body=b"[]")[2])["error"]


def test_pictures_are_small_jpegs_and_drawings_that_say_why_there_is_none(served: Served, made: SmallRoot) -> None:
    came, lost = sorted(made.images)[0], sorted(set(made.samples) - set(made.images))[0]
    _, headers, body = request(f"{served.address}picture/{came}")
    assert headers["Content-Type"] == "image/jpeg" and body[:3] == b"\xff\xd8\xff"
    _, headers, body = request(f"{served.address}picture/{lost}?large")
    assert headers["Content-Type"].startswith("image/svg+xml")
    assert made.downloads[lost]["status"].replace("_", " ").encode() in body
    assert b"unknown" in request(f"{served.address}picture/{'0' * 32}")[2]


def test_a_question_that_takes_too_long_is_stopped_and_the_next_one_answered(made: SmallRoot) -> None:
    with serve_browse(made.root, "--seconds", "0.5") as served:
        long = "(select+sum(a.range)+from+range(10000000)+a,+range(10000000)+b)+>+0"
        said = json.loads(request(f"{served.address}api/wall?where={long}")[2])["error"]
        assert "longer than 0.5 seconds and was stopped" in said
        assert json.loads(request(f"{served.address}api/start")[2])["where"] == "kept"


def test_nothing_is_written_into_the_root_and_ctrl_c_ends_it(made: SmallRoot) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(made.root.base).rglob("*")}
    with serve_browse(made.root) as served:
        uid = sorted(made.images)[0]
        for path in ("api/summary", "api/wall", "api/count", f"api/picture?uid={uid}", f"picture/{uid}?large"):
            assert request(served.address + path)[0] == 200
        status, said = served.interrupt()
    assert status == 130 and said.count("\n") == 1 and "Traceback" not in said
    assert {path: path.stat().st_mtime_ns for path in Path(made.root.base).rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--port", "70000"), "--port must be between"), (("--seconds", "0"), "--seconds must be between")],
)
def test_a_wrong_option_is_one_sentence(made: SmallRoot, options: tuple[str, ...], said: str) -> None:
    with start_browse(made.root, *options) as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == 2 and said in error and error.count("\n") == 1


def test_a_port_that_is_taken_is_one_sentence(made: SmallRoot) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        process = start_browse(made.root, "--port", str(other.getsockname()[1]))
        _, error = process.communicate(timeout=120)
    assert process.returncode == 2 and "is taken by another program" in error and error.count("\n") == 1


def test_what_is_no_root_is_one_sentence(tmp_path: Path) -> None:
    from curation.storage import Root

    with start_browse(Root(tmp_path)) as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == 2 and "is no root" in error and error.count("\n") == 1
