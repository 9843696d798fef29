"""robots.txt and headers against RFC 9309's own examples and a brute-force matcher."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.fetch.politeness import backoff_s, parse_retry_after
from curation.fetch.robots import MAX_PATTERNS, Robots, find_refusal, parse_robots
from curation.recipe.user_agent import product_token
from tests.support.steps import count_lines

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
    assert parse_robots(TEXT, agent).allows(path) is allowed


def test_groups_of_one_agent_are_one() -> None:
    ours = "User-agent: Clip-Curation/2.0\nDisallow: /a\n\n", "\nuser-agent: clip-curation\nDisallow: /b"
    rules = parse_robots("User-agent: *\nDisallow: /\n\n".join(ours), US)
    assert not rules.allows("/a") and not rules.allows("/b") and rules.allows("/c")


@pytest.mark.parametrize("inside", ["\u2028", "\u0085", "\v", "\f", "\x1c"])
def test_a_line_ends_where_the_rfc_says(inside: str) -> None:
    rules = parse_robots(f"User-agent: *\rAllow: /\r\n# see{inside}Disallow: /\nDisallow: /b", US)
    assert rules.allows("/a") and not rules.allows("/b")


def test_the_longest_match_decides_and_allow_wins_a_tie() -> None:
    assert parse_robots("User-agent: *\nAllow: /page\nDisallow: /page\n", US).allows("/page")
    assert not parse_robots("User-agent: *\nAllow: /p\nDisallow: /page\n", US).allows("/page")
    assert parse_robots("User-agent: *\nDisallow:\n", US).allows("/x")


@settings(max_examples=400, deadline=None)
@given(
    pattern=st.text("ab/*", max_size=7).map(lambda s: "/" + s), anchored=st.booleans(), path=st.text("ab/", max_size=9)
)
def test_patterns_match_as_a_regular_expression_would(pattern: str, anchored: bool, path: str) -> None:
    wanted = ".*".join(re.escape(piece) for piece in pattern.split("*")) + ("$" if anchored else "")
    rules = Robots(((pattern + ("$" if anchored else ""), False),))
    assert rules.allows("/" + path) is (re.match(wanted, "/" + path) is None)


RULE = st.tuples(st.text("ab/*$", max_size=6).map(lambda s: "/" + s), st.booleans())


@settings(max_examples=400, deadline=None)
@given(rules=st.lists(RULE, max_size=12), path=st.text("ab/", max_size=8).map(lambda s: "/" + s))
def test_many_rules_decide_as_each_in_turn_would(rules: list[tuple[str, bool]], path: str) -> None:
    found = []
    for pattern, allowed in rules:
        body = pattern.removesuffix("$")
        wanted = ".*".join(re.escape(piece) for piece in body.split("*")) + ("$" if body != pattern else "")
        if re.match(wanted, path):
            found.append((len(pattern), allowed))
    assert Robots(rules).allows(path) is (max(found)[1] if found else True)


@pytest.mark.parametrize(
    "rule, path, allowed",
    [
        # RFC 9309, 2.2.2 and 2.2.3: what is unreserved may be quoted or not, what is reserved means another thing.
        ("/%7Ea/%62", "/~a/b", False),
        ("/~a/b", "/%7ea/%62", False),
        ("/a%3cd", "/a%3Cd", False),
        ("/ツ", "/%E3%83%84", False),
        ("/a%2Fb", "/a/b", True),
        ("/a/b", "/a%2fb", True),
        ("/a%3Fb", "/a?b", True),
        ("/%FF", "/%FE", True),
        ("/%ff", "/%FF", False),
        ("/file-with-a-%2A.html", "/file-with-a-*.html", False),
        ("/file-with-a-%2A.html", "/file-with-a-b.html", True),
        ("/foo-%24", "/foo-$", False),
        ("/foo-%24", "/foo-", True),
        ("/foo-%24", "/foo-$x", False),
        ("/a$b", "/a$bc", False),
    ],
)
def test_escapes(rule: str, path: str, allowed: bool) -> None:
    assert parse_robots(f"User-agent: *\nDisallow: {rule}\n", US).allows(path) is allowed


def test_bytes_that_are_no_text_are_the_bytes_of_a_path() -> None:
    text = b"User-agent: *\nDisallow: /caf\xe9\n".decode("utf-8", "surrogateescape")
    assert not parse_robots(text, US).allows("/caf%E9") and parse_robots(text, US).allows("/caf%C3%A9")


@pytest.mark.parametrize("rule", ["/{i}", "/{i}$", "/*{letter}z{i}"])
def test_what_a_row_costs_does_not_grow_with_the_rules(rule: str) -> None:
    """Each rule in turn took 16 ms a row for the first, and 150 ms for the last with a long path."""
    lines = [rule.format(i=i, letter=chr(97 + i % 26)) for i in range(25_000)]
    rules = Robots((line, False) for line in lines)
    path = "/x" + "ab" * 4_000
    steps = count_lines(lambda: rules.allows(path), Robots.__module__)
    assert steps < 50 + ("*" in rule) * 15 * MAX_PATTERNS
    assert not rules.allows("/24999") or "*" in rule


def test_beyond_the_limit_a_pattern_counts_up_to_its_star() -> None:
    many = "".join(f"Disallow: /long/enough/{i:04d}/*.jpg$\n" for i in range(MAX_PATTERNS))
    rules = parse_robots(f"User-agent: *\n{many}Disallow: /a*.gif\nAllow: /b*.gif\nDisallow: /b\n", US)
    assert not rules.allows("/long/enough/0007/x.jpg") and rules.allows("/long/enough/0007/x.png")
    assert not rules.allows("/a/x.png") and not rules.allows("/b/x.gif") and rules.allows("/c.gif")


def test_many_stars_take_no_time() -> None:
    """A regular expression would take longer than the sun has."""
    rules = parse_robots("User-agent: *\nDisallow: /" + "a*" * 2000 + "b\n", US)
    assert rules.allows("/" + "a" * 5000)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_parsed(text: str) -> None:
    parse_robots(text, US).allows("/x")


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
        ("clip-curation/0.1: noai", True),
        ("noindex; noai", True),
        ("noarchive; noai", True),
        ("noindex nofollow", True),
        ('"noai"', True),
        ("noindex: true", True),
        ("unavailable_after: 2035-12-03T13:09:53+00:00, noai", True),
        ("unavailable_after: 25 Jun 2010 15:00:00 GMT+01:00, noai", True),
        ("360spider: nofollow, noindex", False),
        ("bingbot/2.0: nofollow, noindex", False),
        ("bingbot/2.0: noindex, *: noai", True),
        ("max-image-preview:none", False),
        ("all", False),
        ("nofollow, noarchive", False),
        ("noaiml", False),
        ("", False),
        ("unavailable_after: Wed, 03 Dec 2025 13:09:53 GMT", False),
    ],
)
def test_robots_tags(value: str, refused: bool) -> None:
    assert (find_refusal([("x-robots-tag", value)], US) is not None) is refused


def test_any_header_of_several_refuses() -> None:
    assert find_refusal([("x-robots-tag", "all"), ("content-length", "1"), ("X-Robots-Tag", "noai")], US)
    assert find_refusal([("tdm-reservation", "1")], US) and find_refusal([("TDM-Reservation", " 1 ")], US)
    assert find_refusal([("tdm-reservation", "0")], US) is None
    assert find_refusal([], US) is None


@pytest.mark.parametrize(
    "value, seconds",
    [
        (None, None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("99999999999999999999999999", 999999999999.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 99999999 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_retry_after_a_date() -> None:
    assert (parse_retry_after("Wed, 21 Oct 9999 07:28:00 GMT") or 0.0) > 1e9


def test_backoff_grows_and_ends() -> None:
    for attempt in range(1, 30):
        longest = min(60.0, 0.5 * 2 ** (attempt - 1))
        assert longest / 2 <= backoff_s(attempt) <= longest
