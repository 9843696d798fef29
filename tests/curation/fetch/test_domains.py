"""Registered domains: the unit of politeness."""

from __future__ import annotations

import pytest

from curation.fetch.domains import registered_domain


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("https://img.shop.example.co.uk:8080/a.jpg", "example.co.uk"),
        ("http://EXAMPLE.com./x", "example.com"),
        ("http://user@cdn.a.example/x", "a.example"),
        ("http://localhost/x", "localhost"),
        ("http://127.0.0.1:80/x", "127.0.0.1"),
        ("http://[::1]/x", "::1"),
        ("http://bücher.de/x", "xn--bcher-kva.de"),
        ("http://xn--bcher-kva.de/x", "xn--bcher-kva.de"),
        ("http://img.ＢÜＣＨＥＲ.de./x", "xn--bcher-kva.de"),
        ("http://a\u200b\ud800.example/x", "a\u200b\ud800.example"),
        ("http://someone.github.io/x", "github.io"),
        ("not a url", ""),
        ("http://[bad/x", ""),
        ("", ""),
    ],
)
def test_domains(url: str, domain: str) -> None:
    assert registered_domain(url) == domain
