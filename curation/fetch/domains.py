"""The registered domain of a URL: the unit of politeness, because one operator stands behind it."""

from __future__ import annotations

from functools import cache, lru_cache
from urllib.parse import urlsplit

import tldextract
from yarl import URL


@cache
def _extractor() -> tldextract.TLDExtract:
    # The list that ships with the package: no request, the same answer on every machine.
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


@lru_cache(maxsize=100_000)
def domain_of_host(host: str) -> str:
    """`photos.shop.co.uk` → `shop.co.uk`; under an unlisted suffix the last two labels, an address is itself."""
    found = _extractor().extract_str(host)
    if found.suffix and found.domain:
        return f"{found.domain}.{found.suffix}".lower()
    if found.ipv4 or found.ipv6:
        return host.lower()
    return ".".join(host.lower().rsplit(".", 2)[-2:])


def registered_domain(url: str) -> str:
    """Registered domain of `url`, empty when it has no host."""
    try:
        host = urlsplit(url.strip()).hostname
    except ValueError:
        return ""
    return domain_of_host(_ascii(host).rstrip(".")) if host else ""


@lru_cache(maxsize=10_000)
def _ascii(host: str) -> str:
    """`host` as it goes over the wire, so that a name in Unicode and in Punycode is one; unchanged when it is none."""
    if host.isascii():
        return host
    try:
        return URL.build(scheme="http", host=host).raw_host or host
    except ValueError:
        return host
