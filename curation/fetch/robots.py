"""What a site says about being collected: robots.txt (RFC 9309), X-Robots-Tag, TDM reservation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from curation.schema import Status

MAX_BYTES = 500 * 1024
"""RFC 9309 2.5: a crawler must parse at least 500 KiB."""
REFUSALS = {"noai", "noimageai", "noindex", "noimageindex", "none"}
VALUED = {"max-image-preview", "max-snippet", "max-video-preview", "unavailable_after"}
"""Directives that carry a colon themselves; any other word before a colon names a user agent."""
AGENT = re.compile(r"\*|[a-z_][a-z0-9_.-]*")
"""The date of unavailable_after holds a comma and colons of its own, which must not pass for an agent."""


def product_token(user_agent: str) -> str:
    """The name that robots.txt knows us by: the user agent up to the first character that is no letter, - or _."""
    return re.match(r"[A-Za-z_-]*", user_agent)[0].lower()  # type: ignore[index]  # an empty match is a match


@dataclass(frozen=True)
class Robots:
    """The rules of one robots.txt that concern us: (path pattern, allowed)."""

    rules: tuple[tuple[str, bool], ...] = ()
    status: Status = Status.ROBOTS
    """How a row ends that they do not allow: a temporary status when it is only that they cannot be had now."""
    reason: str = "robots.txt disallows the path"

    def allows(self, path: str) -> bool:
        """RFC 9309 2.2.2: the longest matching pattern decides, allow wins a tie, no match allows."""
        if not self.rules:
            return True
        wanted = _normal(path)
        matching = [(len(pattern), allowed) for pattern, allowed in self.rules if _matches(pattern, wanted)]
        return max(matching)[1] if matching else True


ALLOW_ALL = Robots()


def unavailable(status: Status, reason: str) -> Robots:
    """Rules that allow nothing for now (RFC 9309 2.3.1.4), because of `reason`."""
    return Robots((("/", False),), status, reason)


@dataclass
class _Group:
    agents: list[str] = field(default_factory=list)
    rules: list[tuple[str, bool]] = field(default_factory=list)


def parse(text: str, token: str) -> Robots:
    """The rules for product `token`: those of every group that names it, otherwise of the groups for `*`."""
    groups = _groups(text)
    for name in (token, "*"):
        chosen = [group for group in groups if name in group.agents]
        if chosen:
            return Robots(tuple(rule for group in chosen for rule in group.rules))
    return ALLOW_ALL


def _groups(text: str) -> list[_Group]:
    groups: list[_Group] = []
    naming = False
    for line in text.lstrip("\ufeff").splitlines():
        key, separator, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not separator:
            continue
        if key == "user-agent":
            if not naming:
                groups.append(_Group())
            naming = True
            groups[-1].agents.append("*" if value == "*" else product_token(value))
        elif key in ("allow", "disallow"):
            naming = False
            if groups and value:
                groups[-1].rules.append((_normal(value), key == "allow"))
    return groups


def _normal(path: str) -> str:
    return quote(unquote(path), safe="/*$?=&;:@+,!~'()%") if path else "/"


def _matches(pattern: str, path: str) -> bool:
    anchored = pattern.endswith("$")
    body = pattern[:-1] if anchored else pattern
    # Greedy walk over the pieces between stars: linear, where a regular expression of many stars is not.
    first, *others = body.split("*")
    if not path.startswith(first):
        return False
    position = len(first)
    for piece in others[:-1] if anchored else others:
        found = path.find(piece, position)
        if found < 0:
            return False
        position = found + len(piece)
    if not anchored:
        return True
    return path.endswith(others[-1]) and len(path) - len(others[-1]) >= position if others else position == len(path)


def refusal(headers: Iterable[tuple[str, str]], token: str) -> str | None:
    """The header that forbids to keep the picture, or None. `headers` as (name, value), repeats included."""
    for name, value in headers:
        lower = name.lower()
        if lower == "tdm-reservation" and "1" in (part.strip() for part in value.split(",")):
            return f"tdm-reservation: {value.strip()}"
        if lower == "x-robots-tag" and _tag_refuses(value, token):
            return f"x-robots-tag: {value}"
    return None


def _tag_refuses(value: str, token: str) -> bool:
    """One X-Robots-Tag: directives by commas; `agent:` limits those that follow it to that agent."""
    concerned = True
    for part in value.lower().split(","):
        word, separator, rest = part.strip().partition(":")
        directive = word.strip()
        if separator and directive not in VALUED and AGENT.fullmatch(directive):
            concerned = directive in ("*", token)
            directive = rest.strip()
        if concerned and directive in REFUSALS:
            return True
    return False
