"""What a user agent is called in robots.txt."""

from __future__ import annotations

import re


def product_token(user_agent: str) -> str:
    """The name that robots.txt knows us by: the user agent up to the first character that is no letter, - or _."""
    return re.split(r"[^A-Za-z_-]", user_agent, maxsplit=1)[0].lower()
