"""The guard answers every request of img2dataset, so that our safety and politeness hold for its downloader too.

img2dataset fetches with `urllib.request.urlopen`, and urllib lets a program install what answers it. For a request and
each of its redirects the guard checks scheme, opt-out lists, robots.txt and address. It stops a picture at its deadline
and its limit of bytes, and inspects the header of a picture before img2dataset decodes it. A refusal is an exception
whose text img2dataset writes into its parquet file (jobs/engines/img2dataset_refusals.py).
"""

from __future__ import annotations

import email.message
import hashlib
import http.client
import io
import time
import urllib.response
from collections.abc import Mapping
from typing import Any

from curation.download.opt_out import OptOut
from curation.download.rounds import explain_failure
from curation.fetch import politeness, robots, robots_cache
from curation.fetch.client import RETRIED, TEMPORARY, http_status
from curation.fetch.clock import Clock
from curation.fetch.codings import decode_body, decode_text
from curation.fetch.exchange import GIVEN, REDIRECTS
from curation.fetch.http1 import HttpError
from curation.fetch.urls import BadUrlError, Target, join_url, parse_url
from curation.images.pixels import decode_pixels
from curation.images.probe import PictureError, check_whole, lacks_only_end
from curation.images.process import inspect
from curation.recipe.config import DownloadConfig
from curation.recipe.user_agent import product_token
from curation.schema import Status
from jobs.engines.img2dataset_connections import Connections, OncePerKey
from jobs.engines.img2dataset_refusals import RefusedError, refuse_for

CHUNK_BYTES = 64 << 10
UNREACHED = {Status.DNS, Status.CONNECT, Status.TLS, Status.BLOCKED_ADDRESS}
NO_ROBOTS = {
    *(Status.HTTP_404, Status.HTTP_410, Status.HTTP_429, Status.HTTP_4XX, Status.HTTP_3XX),
    *(Status.INVALID_URL, Status.UNSUPPORTED_SCHEME),
}
"""Ends of a request for robots.txt that allow everything (RFC 9309 2.3.1.3), redirects to nowhere among them."""


class WebGuard:
    """`urllib.request.install_opener(WebGuard(config, opt_out))`; threads may call it at once."""

    def __init__(self, config: DownloadConfig, opt_out: OptOut) -> None:
        self._config, self._opt_out = config, opt_out
        self._token = product_token(config.user_agent)
        self._connections = Connections(config)
        self._robots = OncePerKey[robots.Robots]()
        self._failures: dict[str, list[RefusedError]] = {}
        self.claims: Mapping[str, set[str]] = {}
        """URL → the sha256s that metadata claims for its picture."""
        self.fetched: dict[str, tuple[int, str]] = {}
        """sha256 of what was fetched → its size in bytes and its format."""

    def open(self, request: Any, data: object = None, timeout: object = None) -> urllib.response.addinfourl:
        """Answer `urlopen(request)` with the whole body of a checked picture. Raises RefusedError."""
        url = request.full_url
        self._wait_before_retry(url)
        try:
            body = self._fetch_picture(url)
        except RefusedError as error:
            self._failures.setdefault(url, []).append(error)
            raise
        return urllib.response.addinfourl(io.BytesIO(body), email.message.Message(), url, 200)

    def _wait_before_retry(self, url: str) -> None:
        """Raise a final failure again, and wait after another: img2dataset itself tries again at once."""
        failures = self._failures.get(url)
        if not failures:
            return
        last = failures[-1]
        if last.final or last.status not in RETRIED:
            raise last
        time.sleep(politeness.backoff_s(len(failures)) if last.wait_s is None else last.wait_s)

    def _fetch_picture(self, url: str) -> bytes:
        body = self._follow(url)
        sha256 = hashlib.sha256(body).hexdigest()
        refusal = self._opt_out.explain_sha256(sha256)
        if refusal is not None:
            raise RefusedError(Status.OPTED_OUT, refusal)
        claimed = self.claims.get(url)
        if claimed and sha256 not in claimed:
            raise RefusedError(Status.HASH_MISMATCH, f"fetched {sha256}")
        try:
            header = inspect(body, self._config)
            check_whole(header, body)
            if lacks_only_end(header, body):
                decode_pixels(body, header)  # only a decoder can tell whether the scan is cut
        except PictureError as error:
            raise RefusedError(error.status, explain_failure(error, sha256)) from error
        self.fetched[sha256] = (len(body), header.format)
        return body

    def _follow(self, url: str) -> bytes:
        clock = Clock(self._config.timeout_s)
        target = _parse_target(url)
        for _ in range(self._config.max_redirects + 1):
            if self._opt_out.refuses_url(f"{target.origin}{target.path}"):
                raise RefusedError(Status.OPTED_OUT, "on an opt-out list")
            if self._config.obey_robots:
                with clock.pause():
                    self._check_robots(target)
            answer = self._request(target, clock)
            if isinstance(answer, bytes):
                return answer
            target = answer
        raise RefusedError(Status.TOO_MANY_REDIRECTS, f"more than {self._config.max_redirects}")

    def _check_robots(self, target: Target) -> None:
        rules = self._robots.get(target.origin, lambda: self._read_robots(target))
        if not rules.allows(target.path):
            raise RefusedError(rules.status, rules.reason, final=True)

    def _read_robots(self, target: Target) -> robots.Robots:
        """The rules of the origin, read as curation/fetch/robots_cache.py reads them, in half of the time of a try."""
        clock = Clock(self._config.timeout_s / 2)
        rules = self._try_robots(target, clock)
        for attempt in range(1, robots_cache.MAX_TRIES):
            if rules.status not in robots_cache.TRIED_AGAIN or clock.left_s <= 0:
                break
            time.sleep(politeness.backoff_s(attempt))
            rules = self._try_robots(target, clock)
        return rules

    def _try_robots(self, target: Target, clock: Clock) -> robots.Robots:
        """Try once, redirects included. Raises RefusedError when the host is not reached, as for its picture."""
        place = target._replace(path="/robots.txt")
        for hop in range(robots_cache.MAX_REDIRECTS + 1):
            try:
                answer = self._request(place, clock, robots.MAX_BYTES)
            except RefusedError as error:
                if error.status in NO_ROBOTS:
                    break
                if hop == 0 and error.status in UNREACHED:
                    raise
                return robots_cache.disallow_for_now(HttpError(error.status, error.detail))
            if isinstance(answer, bytes):
                return robots.parse_robots(answer.decode("utf-8", "surrogateescape"), self._token)
            place = answer
        return robots.ALLOW_ALL

    def _request(self, target: Target, clock: Clock, text_bytes: int | None = None) -> bytes | Target:
        """Send one request; returns the body (of a text at most `text_bytes` bytes) or the target of a redirect."""
        try:
            with self._connections.open(target, clock) as connection:
                headers = {"User-Agent": self._config.agent, "Accept": "image/*", "Accept-Encoding": "identity"}
                connection.request("GET", target.path, headers=headers | {"Host": target.netloc, "Connection": "close"})
                with connection.getresponse() as response:
                    location = response.getheader("Location")
                    if response.status in REDIRECTS and location:
                        return _parse_target(location.strip(), target)
                    return self._read_picture(response) if text_bytes is None else _read_text(response, text_bytes)
        except Exception as error:  # whatever the web makes the libraries raise must end the row with a status
            refusal = error if isinstance(error, RefusedError) else refuse_for(error)
            if clock.left_s <= 0 and refusal.status in TEMPORARY:
                detail = f"no whole picture within {self._config.timeout_s:g} s"
                raise RefusedError(Status.TIMEOUT, detail) from error
            raise refusal from error

    def _read_picture(self, response: http.client.HTTPResponse) -> bytes:
        if response.status not in GIVEN:
            wait_s = politeness.parse_retry_after(response.getheader("Retry-After"))
            too_long = wait_s is not None and wait_s > politeness.MAX_WAIT_S
            raise RefusedError(http_status(response.status), f"HTTP {response.status}", wait_s, final=too_long)
        if self._config.obey_robots and (refused := robots.find_refusal(response.getheaders(), self._token)):
            raise RefusedError(Status.OPTED_OUT, refused)
        if response.length is not None and response.length > self._config.max_bytes:
            raise RefusedError(Status.TOO_LARGE, f"{response.length} bytes announced")
        body = bytearray()
        while chunk := response.read(CHUNK_BYTES):
            body += chunk
            if len(body) > self._config.max_bytes:
                raise RefusedError(Status.TOO_LARGE, f"more than {self._config.max_bytes} bytes")
        if response.length:
            raise RefusedError(Status.TRUNCATED, "the body ended before its announced length")
        whole = decode_body(bytes(body), response.getheader("Content-Encoding") or "", self._config.max_bytes)
        if not whole:
            raise RefusedError(Status.EMPTY, "no bytes")
        return whole


def _read_text(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if not 200 <= response.status < 300:
        raise RefusedError(http_status(response.status), f"HTTP {response.status}")
    body = response.read(max_bytes)
    if len(body) < max_bytes and response.length:
        raise RefusedError(Status.TRUNCATED, "the body ended before its announced length")
    return decode_text(body, response.getheader("Content-Encoding") or "", max_bytes)


def _parse_target(url: str, base: Target | None = None) -> Target:
    try:
        return parse_url(url) if base is None else join_url(base, url)
    except BadUrlError as error:
        raise RefusedError(error.status, error.detail) from error
