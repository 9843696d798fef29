"""The exception with which the guard ends a fetch, and its text, which comes back in img2dataset's error message."""

from __future__ import annotations

import http.client
import ssl

from curation.fetch.http1 import HttpError
from curation.schema import Status

MARK = "clip-curation "


class RefusedError(Exception):
    """A fetch that ended without a picture. `wait_s` is the wait before another try; `final`: none can help."""

    def __init__(self, status: Status, detail: str = "", wait_s: float | None = None, final: bool = False) -> None:
        super().__init__(f"{MARK}{status}: {detail}")
        self.status, self.detail, self.wait_s, self.final = status, detail, wait_s, final


def parse_refusal(message: str | None) -> tuple[Status, str] | None:
    """Status and detail of a RefusedError that img2dataset wrote down; None for a message of its own."""
    status, _, detail = (message or "").removeprefix(MARK).partition(": ")
    return (Status(status), detail) if (message or "").startswith(MARK) and status in set(Status) else None


def refuse_for(error: Exception) -> RefusedError:
    """The RefusedError for an exception that Python raises while it connects and reads."""
    if isinstance(error, HttpError):
        return RefusedError(error.status, error.detail)
    if isinstance(error, ssl.SSLError):
        return RefusedError(Status.TLS, "the certificate or the handshake was refused")
    if isinstance(error, TimeoutError):
        return RefusedError(Status.CONNECT, "no connection in time")
    if isinstance(error, http.client.IncompleteRead):
        return RefusedError(Status.TRUNCATED, "the body ended before its announced length")
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return RefusedError(Status.DISCONNECTED, "the server closed the connection")
    if isinstance(error, OSError):
        return RefusedError(Status.CONNECT, error.strerror or type(error).__name__)
    if isinstance(error, http.client.InvalidURL | UnicodeError):
        return RefusedError(Status.INVALID_URL, "no valid URL")
    return RefusedError(Status.BAD_RESPONSE, type(error).__name__)
