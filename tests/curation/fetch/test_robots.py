"""robots.txt and headers against RFC 9309's own examples and a brute-force matcher."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.fetch.politeness import backoff_s, retry_after_s
from curation.fetch.robots import Robots, parse, product_token, refusal

US = "clip-curation"
TEXT = """\
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""
"""RFC 9309, 5.1."""


@pytest.mark.parametrize(
    "agent, path, allowed",
    [
        ("otherbot", "/publications/a", True),
        ("otherbot", "/example/a", False),
        ("otherbot", "/x.gif", False),
        ("otherbot", "/x.gif?y", True),
        ("foobot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("foobot", "/", False),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("barbot", "/example/", True),
        ("quxbot", "/anything", True),
    ],
)
def test_the_example_of_the_rfc(agent: str, path: str, allowed: bool) -> None:
    assert parse(TEXT, agent).allows(path) is allowed


def test_groups_of_one_agent_are_one() -> None:
    ours = "User-agent: Clip-Curation/2.0\nDisallow: /a\n\n", "\nuser-agent: clip-curation\nDisallow: /b"
    rules = parse("User-agent: *\nDisallow: /\n\n".join(ours), US)
    assert not rules.allows("/a") and not rules.allows("/b") and rules.allows("/c")


def test_the_longest_match_decides_and_allow_wins_a_tie() -> None:
    assert parse("User-agent: *\nAllow: /page\nDisallow: /page\n", US).allows("/page")
    assert not parse("User-agent: *\nAllow: /p\nDisallow: /page\n", US).allows("/page")
    assert parse("User-agent: *\nDisallow:\n", US).allows("/x")


@settings(max_examples=400, deadline=None)
@given(
    pattern=st.text("ab/*", max_size=7).map(lambda s: "/" + s), anchored=st.booleans(), path=st.text("ab/", max_size=9)
)
def test_patterns_match_as_a_regular_expression_would(pattern: str, anchored: bool, path: str) -> None:
    wanted = ".*".join(re.escape(piece) for piece in pattern.split("*")) + ("$" if anchored else "")
    rules = Robots(((pattern + ("$" if anchored else ""), False),))
    assert rules.allows("/" + path) is (re.match(wanted, "/" + path) is None)


@pytest.mark.timeout(30)
def test_many_stars_take_no_time() -> None:
    """A regular expression would take longer than the sun has."""
    rules = parse("User-agent: *\nDisallow: /" + "a*" * 2000 + "b\n", US)
    assert rules.allows("/" + "a" * 5000)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_parsed(text: str) -> None:
    parse(text, US).allows("/x")


@pytest.mark.parametrize(
    "agent, token",
    [("clip-curation/1.0 (+https://x)", "clip-curation"), ("MyBot", "mybot"), ("", ""), ("my_bot 2", "my_bot")],
)
def test_product_token(agent: str, token: str) -> None:
    assert product_token(agent) == token


@pytest.mark.parametrize(
    "value, refused",
    [
        ("noai", True),
        ("NOAI", True),
        (" noimageai ", True),
        ("max-image-preview:large, noai", True),
        ("noai, max-image-preview: large", True),
        ("max-snippet:-1,max-video-preview:-1,noindex", True),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noindex", True),
        ("unavailable_after: Wed, 03 Dec 2025 13:09:53 GMT, noai", True),
        ("noindex, unavailable_after: Wed, 03 Dec 2025 13:09:53 GMT", True),
        ("none", True),
        ("clip-curation: noai", True),
        ("Clip-Curation: nofollow, noimageindex", True),
        ("*: noai", True),
        ("googlebot: nofollow, clip-curation: noindex", True),
        ("otherbot: noindex, nofollow", False),
        ("otherbot: noai, googlebot: none", False),
        ("all", False),
        ("nofollow, noarchive", False),
        ("noaiml", False),
        ("", False),
        ("unavailable_after: Wed, 03 Dec 2025 13:09:53 GMT", False),
    ],
)
def test_robots_tags(value: str, refused: bool) -> None:
    assert (refusal([("x-robots-tag", value)], US) is not None) is refused


def test_any_header_of_several_refuses() -> None:
    assert refusal([("x-robots-tag", "all"), ("content-length", "1"), ("X-Robots-Tag", "noai")], US)
    assert refusal([("tdm-reservation", "1")], US) and refusal([("TDM-Reservation", " 1 ")], US)
    assert refusal([("tdm-reservation", "0")], US) is None
    assert refusal([], US) is None


@pytest.mark.parametrize(
    "value, seconds",
    [
        (None, None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("99999999999999999999999999", 60.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 9999 07:28:00 GMT", 60.0),
        ("Wed, 21 Oct 99999999 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds


def test_backoff_grows_and_ends() -> None:
    for attempt in range(1, 30):
        longest = min(60.0, 0.5 * 2 ** (attempt - 1))
        assert longest / 2 <= backoff_s(attempt) <= longest
