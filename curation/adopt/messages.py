"""img2dataset's message about a row as a status; its messages are Python's, OpenCV's and a few of its own."""

from __future__ import annotations

import re

from curation.fetch.client import http_status
from curation.schema import Status

FAILED_TO_RESIZE = "failed_to_resize"
_HTTP = re.compile(r"HTTP Error (\d{3})")
_PATTERNS = (
    (r"X-Robots-Tag", Status.OPTED_OUT),
    (r"hash mismatch", Status.HASH_MISMATCH),
    (r"infinite loop|too many redirect", Status.TOO_MANY_REDIRECTS),
    (r"urlopen error unknown url type", Status.UNSUPPORTED_SCHEME),
    (r"unknown url type|no host given|control characters|nonnumeric port|Invalid IPv6|codec can't encode|label",
     Status.INVALID_URL),
    (r"timed? ?out", Status.TIMEOUT),
    (r"Errno -\d\b|name resolution|Name or service|getaddrinfo|nodename nor servname", Status.DNS),
    (r"SSL|TLS|CERTIFICATE", Status.TLS),
    (r"IncompleteRead|more expected", Status.TRUNCATED),
    (r"reset by peer|Remote end closed|Broken pipe|Errno (32|54|104)\b", Status.DISCONNECTED),
    (r"refused|unreachable|No route to host|urlopen error \[Errno", Status.CONNECT),
    (r"status line|header|chunk|Got more than", Status.BAD_RESPONSE),
    (r"image too small|aspect ratio too large", Status.TOO_SMALL),
    (r"image area too large|pixels|OutOfMemory|Insufficient memory|allocate", Status.TOO_MANY_PIXELS),
    (r"Image decoding error|cannot identify image", Status.NOT_AN_IMAGE),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), status) for pattern, status in _PATTERNS)


def classify_message(state: str | None, message: str | None) -> Status:
    """The status of a row that img2dataset gave up with a `state` (failed_to_download, failed_to_resize) and a message.

    A message that no pattern matches is `corrupt` when it comes from resizing, `internal_error` otherwise.
    """
    text = message or ""
    code = _HTTP.search(text)
    if code and "infinite loop" not in text:
        return http_status(int(code[1]))
    for pattern, status in _COMPILED:
        if pattern.search(text):
            return status
    return Status.CORRUPT if state == FAILED_TO_RESIZE else Status.INTERNAL_ERROR
