"""Waits before a host gets another request."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime

BACKOFF_S = 0.5
MAX_WAIT_S = 60.0
"""The longest wait that a host may ask for; rows of a host that asks for more wait for a later round."""


def backoff_s(attempt: int) -> float:
    """Exponential with jitter before try number `attempt` (1 is the first retry), in seconds."""
    return random.uniform(0.5, 1.0) * min(MAX_WAIT_S, BACKOFF_S * 2.0 ** (attempt - 1))


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3: seconds or a date)."""
    if value is None:
        return None
    if value.isascii() and value.strip().isdigit():
        return float(value.strip()[:12])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
