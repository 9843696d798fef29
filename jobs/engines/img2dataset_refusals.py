"""How a fetch through the guard ends without a picture, and its way through a message of img2dataset's."""

from __future__ import annotations

import http.client
import ssl

from curation.fetch.http1 import HttpError
from curation.schema import Status

MARK = "clip-curation "


class RefusedError(Exception):
    """The end of one fetch. `wait_s` is how long to wait before another try, which `final` says is of no use."""

    def __init__(self, status: Status, detail: str = "", wait_s: float | None = None, final: bool = False) -> None:
        super().__init__(f"{MARK}{status}: {detail}")
        self.status, self.detail, self.wait_s, self.final = status, detail, wait_s, final


def ended(message: str | None) -> tuple[Status, str] | None:
    """Status and detail of a refusal that img2dataset wrote down; None for a message of its own."""
    status, _, detail = (message or "").removeprefix(MARK).partition(": ")
    return (Status(status), detail) if (message or "").startswith(MARK) and status in set(Status) else None


def refused_for(error: Exception) -> RefusedError:
    """What Python raises while connecting and reading, as a status."""
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
