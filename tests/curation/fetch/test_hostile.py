"""The whole engine over two units of a web that means harm: every row ends, in the right status, and nothing grows."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from curation.download import unit as download
from curation.download.native_engine import fetch_rows
from curation.download.unit_rows import UnitRows
from curation.fetch import politeness
from curation.schema import Status
from curation.storage import Root
from tests.support import moved_clock
from tests.support.hostile_behaviours import BEHAVIOURS, TIMEOUT_S
from tests.support.hostile_server import HostileServer
from tests.support.hostile_web import BEHAVES, config_of, fake_getaddrinfo, fill, serving
from tests.support.memory import memory_bytes

PROMPT, LATE = "00000000-000000", "00000000-000001"
"""Two units: the rows whose deadline never passes however busy the machine is, and those whose deadline is the subject,
which passes on a clock that the test moves."""
GENEROUS_S = 120.0
MAX_RSS_BYTES = 1 << 30
Row = dict[str, Any]


def fetch_late(server: HostileServer, waiting: UnitRows) -> None:
    """End the rows of `waiting` from `server` on a clock that moves when nobody has anything to do but to wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "run", partial(moved_clock.run, connected=server.connected))
        fetch_rows(waiting)


def one_pass(folder: Path, server: HostileServer) -> tuple[Root, dict[str, Row]]:
    """Download both units into a new root; their rows by name."""
    folder.mkdir()
    root = Root(folder / "root")
    late = [b for b in BEHAVES if b.status is Status.TIMEOUT]
    names = fill(root, PROMPT, [b for b in BEHAVES if b not in late]) | fill(root, LATE, late)
    download.download_unit(root, PROMPT, config_of(server.connect_to, folder, GENEROUS_S))
    download.download_unit(
        root, LATE, config_of(server.connect_to, folder, TIMEOUT_S), engine=partial(fetch_late, server)
    )
    rows = [row for unit in (PROMPT, LATE) for row in root.read_parquet(f"downloads/{unit}.parquet").to_pylist()]
    return root, {names[row["uid"]]: row for row in rows}


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Two passes over two servers that behave alike."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", fake_getaddrinfo)
        patch.setattr(politeness, "MAX_WAIT_S", 0.3)
        patch.setattr(politeness, "BACKOFF_S", 0.05)
        patch.setattr("curation.fetch.client.TEMPORARY_TTL_S", 0.1)
        found: dict[str, Any] = {}
        for name in ("first", "second"):
            with serving() as server:
                root, rows = one_pass(folder / name, server)
                found[name] = {"root": root, "rows": rows, "asked": dict(server.asked)}
                found[name]["heads"] = dict(server.heads)
        yield found


def test_there_are_many() -> None:
    assert len(BEHAVES) >= 60


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_ends_in_its_status(passes: dict[str, Any], name: str) -> None:
    row, wanted = passes["first"]["rows"][name], BEHAVIOURS[name]
    assert (row["status"], row["detail"]) == (wanted.status, row["detail"])
    assert wanted.detail in (row["detail"] or "")
    assert (row["shard"] is not None) == (wanted.status is Status.OK)


def test_every_row_ends_once_and_nothing_hangs(passes: dict[str, Any]) -> None:
    for found in passes.values():
        assert len(found["rows"]) == len(BEHAVES)


def test_two_passes_give_the_same_bytes(passes: dict[str, Any]) -> None:
    first, second = passes["first"]["root"], passes["second"]["root"]
    shards = first.list("raw", ".tar")
    assert shards and shards == second.list("raw", ".tar")
    for shard in shards:
        assert first.read_bytes(f"raw/{shard}") == second.read_bytes(f"raw/{shard}")
    differing = [
        name
        for name, row in passes["first"]["rows"].items()
        if {k: v for k, v in row.items() if k != "detail"}
        != {k: v for k, v in passes["second"]["rows"][name].items() if k != "detail"}
    ]
    assert not differing


def test_what_may_not_be_asked_was_not_asked(passes: dict[str, Any]) -> None:
    asked = {label for label, path in passes["first"]["asked"] if path != "/robots.txt"}
    assert not asked & {"opted-out-url", "opted-out-host", "opted-out-by-claim"}
    assert not asked & {"robots-disallows", "robots-broken", "robots-drip"}


def test_robots_txt_is_asked_for_once_a_host(passes: dict[str, Any]) -> None:
    asked = passes["first"]["asked"]
    often = {label for (label, path), times in asked.items() if path == "/robots.txt" and times > 1}
    for label in ("robots-broken", "robots-reset", "robots-torn", "robots-garbage", "robots-brotli"):
        assert asked[label, "/robots.txt"] == 3, label
    trouble = {"robots-closed", "robots-unknown-transfer-coding", "robots-reset-once", "robots-broken-once"}
    trouble |= {"robots-broken", "robots-reset", "robots-torn", "robots-garbage", "robots-brotli"}
    # The second redirects to itself, a redirect of robots.txt leads to the third.
    assert often == trouble | {"robots-redirect-inside", "robots-redirect-loop", "robots-disallows"}


@pytest.mark.parametrize(
    "name, times",
    [
        ("code_404", 1),
        ("code_410", 1),
        ("code_451", 1),
        ("code_403", 1),
        ("code_500", 3),
        ("code_429", 3),
        ("retry_after_absurd", 1),
        ("retry_after_half_a_day", 1),
        ("length_too_long", 3),
        ("drip_body", 1),
        ("endless_body", 1),
        ("html_as_jpeg", 1),
        ("broken_then_fine", 2),
        ("broken_twice_then_fine", 3),
    ],
)
def test_tries_again_only_what_a_second_try_may_change(passes: dict[str, Any], name: str, times: int) -> None:
    assert passes["first"]["asked"][BEHAVIOURS[name].label, "/picture.jpg"] == times


def test_requests_say_who_asks_and_carry_no_secret(passes: dict[str, Any]) -> None:
    heads = passes["first"]["heads"]
    assert "User-Agent: clip-curation/" in heads["plain-picture"]
    assert "Accept-Encoding: identity" in heads["plain-picture"]
    assert "uthorization" not in heads["url-with-password"] and "secret" not in heads["url-with-password"]
    assert not any(line.startswith("X-Injected") for line in heads["url-with-line-break"].split("\r\n"))


def test_paths_go_over_the_wire_quoted_once(passes: dict[str, Any]) -> None:
    heads = passes["first"]["heads"]
    assert heads["url-in-unicode"].startswith("GET /%E6%97%A5%E6%9C%AC/%C3%A9.jpg?q=%C3%BC HTTP/1.1\r\n")
    assert heads["url-with-spaces"].startswith("GET /a%20picture.jpg HTTP/1.1\r\n")
    assert heads["redirect-in-unicode"].startswith("GET /there-%C3%A9-%E6%97%A5.jpg HTTP/1.1\r\n")
    assert "%2520" not in heads["url-half-quoted"]


@pytest.mark.slow
def test_memory_does_not_grow_from_pass_to_pass(tmp_path: Path) -> None:
    """A process of its own runs three passes; the largest it and its decoders ever were, and what stays."""
    run = [sys.executable, "-m", "tests.curation.fetch.test_hostile", str(tmp_path)]
    out = subprocess.run(run, check=True, capture_output=True, text=True, timeout=800).stdout
    seen = json.loads(out)
    assert seen["largest"] < MAX_RSS_BYTES and seen["largest_decoder"] < MAX_RSS_BYTES
    assert seen["after"][2] - seen["after"][0] < 64 << 20


def main(folder: Path) -> None:
    socket.getaddrinfo = fake_getaddrinfo  # type: ignore[assignment]  # names of the test web only
    politeness.MAX_WAIT_S, politeness.BACKOFF_S = 0.3, 0.05
    after = []
    for number in range(3):
        with serving() as server:
            one_pass(folder / str(number), server)
        after.append(memory_bytes("VmRSS"))
    from curation.images.decoder import end_idle

    end_idle()
    decoders = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    sys.stdout.write(json.dumps({"after": after, "largest": memory_bytes("VmHWM"), "largest_decoder": decoders}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
