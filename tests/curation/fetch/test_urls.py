"""URLs: the quick way and the slow way agree, and what cannot be fetched is refused with its reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.fetch import urls
from curation.fetch.urls import BadUrlError, Target, canonicalise_path, join_url, parse_url
from curation.schema import Status


@pytest.mark.parametrize(
    "url, target",
    [
        ("http://a.example/b.jpg", ("http", "a.example", 80, "/b.jpg")),
        ("https://a.example", ("https", "a.example", 443, "/")),
        ("http://a.example:8080/b?c=d&e#f", ("http", "a.example", 8080, "/b?c=d&e")),
        ("HTTP://A.Example/B.JPG", ("http", "a.example", 80, "/B.JPG")),
        ("http://user:pw@a.example/b", ("http", "a.example", 80, "/b")),
        ("http://bücher.example/ü", ("http", "xn--bcher-kva.example", 80, "/%C3%BC")),
        ("http://a_b.example/c", ("http", "a_b.example", 80, "/c")),
        ("http://[2606:4700::1111]:81/x", ("http", "2606:4700::1111", 81, "/x")),
        ("  http://a.example/b c\n", ("http", "a.example", 80, "/b%20c")),
        ("http://a.example?q=1", ("http", "a.example", 80, "/?q=1")),
        ("http://a.example/%E6%97%A5%2Fx", ("http", "a.example", 80, "/%E6%97%A5%2Fx")),
        # What is legal stays as given, whatever else has to be quoted: a signature may cover it.
        ("http://A.example/%41%2f?x=%2F&y=a+b#f", ("http", "a.example", 80, "/%41%2f?x=%2F&y=a+b")),
        ("http://a.example/%zz?q=é x[]", ("http", "a.example", 80, "/%zz?q=%C3%A9%20x%5B%5D")),
        ("http://A.example/x?", ("http", "a.example", 80, "/x?")),
        ("http://a.example/public/../private/x", ("http", "a.example", 80, "/private/x")),
        ("http://A.example/public/%2E./private/.", ("http", "a.example", 80, "/private/")),
        ("http://a.example/../../a//..?b/../c", ("http", "a.example", 80, "/a/?b/../c")),
        ("http://a.example/.well-known/%2ehidden", ("http", "a.example", 80, "/.well-known/%2ehidden")),
    ],
)
def test_parsed(url: str, target: tuple[str, str, int, str]) -> None:
    assert tuple(parse_url(url)) == target


@pytest.mark.parametrize(
    "url, status",
    [
        ("", Status.INVALID_URL),
        ("a.example/b", Status.INVALID_URL),
        ("http://", Status.INVALID_URL),
        ("http://./x", Status.INVALID_URL),
        ("http:///x", Status.INVALID_URL),
        ("http://a.example:0/", Status.INVALID_URL),
        ("http://a.example:99999/", Status.INVALID_URL),
        ("http://a.example:x/", Status.INVALID_URL),
        ("http://[::1/", Status.INVALID_URL),
        ("http://[fe80::1%25en0]/", Status.INVALID_URL),
        ("http://a.example/" + "a" * 20_000, Status.INVALID_URL),
        ("http://" + "ü" * 5_000 + ".example/", Status.INVALID_URL),
        ("http://a.example/" + "é" * 8_000, Status.INVALID_URL),
        ("ftp://a.example/b", Status.UNSUPPORTED_SCHEME),
        ("file:///etc/passwd", Status.UNSUPPORTED_SCHEME),
        ("javascript:alert(1)", Status.UNSUPPORTED_SCHEME),
        ("data:image/png;base64,AAAA", Status.UNSUPPORTED_SCHEME),
    ],
)
def test_refused(url: str, status: Status) -> None:
    with pytest.raises(BadUrlError) as error:
        parse_url(url)
    assert error.value.status is status and error.value.detail


@settings(max_examples=150, deadline=None)
@given(
    scheme=st.sampled_from(["http", "https"]),
    host=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]{1,5}){1,2}", fullmatch=True),
    port=st.one_of(st.none(), st.integers(1, 65_535)),
    path=st.text("abXYZ019-_~!$&'()*+,;=:@/?.%", max_size=20),
)
def test_the_quick_way_is_the_slow_way(scheme: str, host: str, port: int | None, path: str) -> None:
    url = f"{scheme}://{host}{'' if port is None else f':{port}'}/{path}"
    assert parse_url(url) == urls._parse_slowly(url)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(max_size=60).map(lambda s: f"http://a.example{s}")))
def test_any_text_is_a_target_or_refused(url: str) -> None:
    try:
        target = parse_url(url)
    except BadUrlError as error:
        assert error.status in (Status.INVALID_URL, Status.UNSUPPORTED_SCHEME)
    else:
        assert parse_url(f"{target.origin}{target.path}") == target, (
            "a target is looked up again by what was made of it"
        )
        line = f"{target.path}{target.netloc}"
        assert line.isascii() and not any(c <= " " or c == "\x7f" for c in line)


def test_spellings_of_one_path_have_one_form() -> None:
    assert canonicalise_path("/%7ea%2fb%41%C3%a9%zz%") == "/~a%2Fb" + "A%C3%A9%zz%"
    assert canonicalise_path("/%2a%24%3F%ff") == "/%2A%24%3F%FF", "what is reserved, and what is no text, stays apart"


@pytest.mark.parametrize(
    "location, path",
    [("/x", "/x"), ("x", "/a/x"), ("?q", "/a/b?q"), ("../x", "/x"), ("#f", "/a/b"), ("", "/a/b"), (" /x y ", "/x%20y")],
)
def test_redirects_are_joined(location: str, path: str) -> None:
    base = Target("http", "a.example", 81, "/a/b")
    assert join_url(base, location) == base._replace(path=path)


def test_redirects_to_other_hosts() -> None:
    base = Target("https", "a.example", 443, "/a")
    assert join_url(base, "//b.example/c") == Target("https", "b.example", 443, "/c")
    assert join_url(base, "http://b.example:8080/c") == Target("http", "b.example", 8080, "/c")
    with pytest.raises(BadUrlError):
        join_url(base, "http://[::1/")


def test_how_a_target_is_written() -> None:
    assert Target("http", "a.example", 80, "/").netloc == "a.example"
    assert Target("https", "a.example", 80, "/").netloc == "a.example:80"
    assert Target("http", "::1", 8080, "/").origin == "http://[::1]:8080"
