"""A row's URL as the target of a request: scheme, host, port and path, as they are sent."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, urljoin

from yarl import URL

from curation.schema import Status

MAX_LENGTH = 16_384
"""Characters; servers refuse request lines beyond 8 to 16 KB."""
DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PARTS = re.compile(r"[^:]*://([^/?#]*)([^?#]*)(\?[^#]*)?")
_DROPPED = str.maketrans("", "", "\t\r\n")
"""As browsers do (WHATWG URL, basic URL parser)."""
_NOT_LEGAL = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/?%-]+")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ORDINARY = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::([0-9]{1,5}))?(/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)?"
)
"""URLs that need no quoting, IDNA or lower case: nearly all, parsed ten times faster than by a full parser."""


class BadUrlError(Exception):
    """A URL that cannot be fetched: the status of its row, and the reason."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(status, detail)
        self.status, self.detail = status, detail


class Target(NamedTuple):
    """One resource. `host` is ASCII in lower case; `path` is quoted and has the query but no fragment.

    Legal characters of a path are kept as they were given, since a signature may cover them; dot segments are removed.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def netloc(self) -> str:
        """Host and port for the Host header (RFC 9110 7.2)."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.netloc}"


def parse_url(url: str) -> Target:
    """The target of `url`, without user name and password. Raises BadUrlError."""
    ordinary = _ORDINARY.fullmatch(url) if len(url) <= MAX_LENGTH else None
    if ordinary is None:
        return _parse_slowly(url.strip())
    scheme, host, port, path = ordinary.groups()
    number = int(port) if port else DEFAULT_PORTS[scheme]
    if not 0 < number < 65_536:
        raise BadUrlError(Status.INVALID_URL, f"port {number}")
    path = path or "/"
    return Target(scheme, host, number, _remove_dot_segments(path) if "/." in path or "/%2" in path else path)


def _parse_slowly(url: str) -> Target:
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise BadUrlError(Status.INVALID_URL, "no scheme")
    if scheme[1].lower() not in DEFAULT_PORTS:
        raise BadUrlError(Status.UNSUPPORTED_SCHEME, f"{scheme[1][:20]}; only http and https are fetched")
    if len(url) > MAX_LENGTH:
        raise BadUrlError(Status.INVALID_URL, f"{len(url)} characters")
    parts = _PARTS.match(url.translate(_DROPPED))
    if parts is None:
        raise BadUrlError(Status.INVALID_URL, "no host")
    authority, path, query = parts.groups()
    try:
        parsed = URL(f"{scheme[1]}://{authority}/")
        host, port = parsed.raw_host, parsed.port
        path = _remove_dot_segments(quote_path(f"{path or '/'}{query or ''}"))
    except (ValueError, UnicodeError) as error:
        raise BadUrlError(Status.INVALID_URL, str(error)) from error
    return _make_target(parsed.scheme, (host or "").lower(), port or 0, path)


def quote_path(path: str) -> str:
    """`path` with illegal characters percent-encoded as UTF-8; surrogates stand for bytes that are no UTF-8."""
    return _NOT_LEGAL.sub(lambda match: quote(match[0], safe="", errors="surrogateescape"), path)


def canonicalise_path(path: str) -> str:
    """The form in which quoted paths are compared: equal for all spellings of the same path (RFC 3986 6.2.2)."""
    return _ESCAPE.sub(_plain_or_upper, path) if "%" in path else path


def _plain_or_upper(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def _remove_dot_segments(path: str) -> str:
    """Remove dot segments before the query (RFC 3986 5.2.4); as in browsers, `%2e` is a dot in such a segment."""
    path, mark, query = path.partition("?")
    kept: list[str] = []
    dots = ""
    for segment in path.split("/")[1:]:
        dots = segment.lower().replace("%2e", ".")
        if dots == "..":
            del kept[-1:]
        elif dots != ".":
            kept.append(segment)
    if dots in (".", ".."):
        kept.append("")
    return f"/{'/'.join(kept)}{mark}{query}"


def _make_target(scheme: str, host: str, port: int, path: str) -> Target:
    if not host.strip("."):
        raise BadUrlError(Status.INVALID_URL, "no host")
    if "%" in host:
        raise BadUrlError(Status.INVALID_URL, "an address with a zone, which means something on one machine only")
    if not host.isascii() or any(c <= " " or c == "\x7f" for c in host + path):
        raise BadUrlError(Status.INVALID_URL, "the host holds characters that no host name has")
    if not 0 < port < 65_536:
        raise BadUrlError(Status.INVALID_URL, f"port {port}")
    target = Target(scheme, host, port, path)
    if len(target.origin) + len(path) > MAX_LENGTH:
        raise BadUrlError(Status.INVALID_URL, f"{len(path)} characters once quoted")
    return target


def join_url(base: Target, location: str) -> Target:
    """The target of a redirect from `base` to `location`. Raises BadUrlError."""
    try:
        joined = urljoin(f"{base.origin}{base.path}", location.strip())
    except ValueError as error:
        raise BadUrlError(Status.INVALID_URL, f"redirect: {error}") from error
    return parse_url(joined)
