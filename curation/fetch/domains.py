"""The registered domain of a URL. Politeness counts requests by it, because one operator runs its hosts."""

from __future__ import annotations

from functools import cache, lru_cache
from urllib.parse import urlsplit

import tldextract
from yarl import URL


@cache
def _extractor() -> tldextract.TLDExtract:
    # The list that the package contains needs no request, and gives the same answer on every machine.
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


@lru_cache(maxsize=100_000)
def domain_of_host(host: str) -> str:
    """`photos.shop.co.uk` → `shop.co.uk`; the last two labels under an unlisted suffix; an address unchanged."""
    parts = _extractor().extract_str(host)
    if parts.suffix and parts.domain:
        return f"{parts.domain}.{parts.suffix}".lower()
    if parts.ipv4 or parts.ipv6:
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
