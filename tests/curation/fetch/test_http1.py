"""The HTTP/1.1 parser: however the bytes are cut, the same end; nothing that a server sends raises anything else."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.fetch.budget import Budget
from curation.fetch.http1 import Connection, parse_head
from curation.schema import Status
from tests.support import moved_clock
from tests.support.http_exchange import ANSWERS, BODY, CHUNKED, Wire, exchange


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 1200), max_size=30))
def test_the_same_end_however_the_bytes_are_cut(name: str, cuts: list[int]) -> None:
    data, status, stays = ANSWERS[name]
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in zip(places, places[1:], strict=False) if a < b]
    closes = not stays
    found = moved_clock.run(exchange(pieces, closes))
    assert found == (status, BODY if status == "ok" else b"", stays)


def test_byte_by_byte() -> None:
    for data, status, stays in ANSWERS.values():
        found = moved_clock.run(exchange([bytes([b]) for b in data], closes=not stays))
        assert found == (status, BODY if status == "ok" else b"", stays)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [b"HTTP/1.1 200 OK\r\n", b"Content-Length: ", b"5\r\n", b"\r\n\r\n", CHUNKED, b"0\r\n\r\n"]
            ),
        ),
        max_size=12,
    )
)
def test_any_bytes_end_as_a_body_or_a_status(pieces: list[bytes]) -> None:
    status, _, _ = moved_clock.run(exchange(pieces, closes=True))
    assert status == "ok" or status in set(Status)


@pytest.mark.parametrize("body", [b"\r\n\r\nabc", b"abc\r\n\r\n", b"\n\nabcde", b"ab\n\n\r\nc"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_empty_lines_of_the_body_end_no_head(body: bytes, newline: bytes) -> None:
    data = newline.join([b"HTTP/1.1 200 OK", b"Content-Length: 7", b"", body])
    for pieces in ([data], [bytes([b]) for b in data]):
        assert moved_clock.run(exchange(pieces, closes=False)) == ("ok", body, True)


def test_bytes_behind_the_answer_end_the_connection() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n"
    assert moved_clock.run(exchange([data], closes=False)) == ("ok", b"abc", False)


def test_a_body_waits_for_its_share_of_memory() -> None:
    """Reading stops at 256 KB until the budget lets the body have more."""

    async def main() -> None:
        connection, wire = Connection(asyncio.get_running_loop()), Wire()
        connection.connection_made(wire)
        budget = Budget(8 << 20)
        held = [budget.share() for _ in range(16)]
        for share in held:
            await share.grow(8 << 20)
        asking = asyncio.create_task(connection.ask(b"GET / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(300_000))
        await asking
        mine = budget.share()
        reading = asyncio.create_task(connection.read_body(mine, 8 << 20))
        await asyncio.sleep(0.01)
        assert wire.paused and not reading.done()
        held[0].give_back()
        await asyncio.sleep(0.01)
        assert not wire.paused
        connection.data_received(bytes(700_000))
        assert len(await reading) == 1_000_000
        mine.give_back()
        connection.close()

    moved_clock.run(main())


def test_headers_that_matter_are_found_in_any_case_and_order() -> None:
    answer = parse_head(
        b"HTTP/1.1 302 Found\r\nX-Other: content-length: 3\r\nLOCATION:  /a b \r\nx-robots-tag: noai\r\n"
        b"X-Robots-Tag: none\r\nretry-after:5"
    )
    assert answer.code == 302 and answer.length is None and answer.get("location") == "/a b"
    assert answer.headers == [
        ("location", "/a b"),
        ("x-robots-tag", "noai"),
        ("x-robots-tag", "none"),
        ("retry-after", "5"),
    ]


@pytest.mark.parametrize("chunked", [False, True])
def test_single_bytes_take_no_more_memory_than_large_pieces(chunked: bool) -> None:
    size = 60_000
    head = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % size
    body = b"1\r\nx\r\n" * size + b"0\r\n\r\n" if chunked else b"x" * size

    async def dribbled() -> tuple[int, bytes]:
        connection = Connection(asyncio.get_running_loop())
        connection.connection_made(Wire())
        asking = asyncio.create_task(connection.ask(b"GET / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        connection.data_received(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        await asking
        tracemalloc.start()
        for at in range(len(body)):
            connection.data_received(body[at : at + 1])
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return held, await connection.read_body(Budget(size).share(), size)

    held, received = moved_clock.run(dribbled())
    assert received == b"x" * size
    assert held < 2 * size
