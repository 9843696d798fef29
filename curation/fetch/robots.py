"""Whether a site allows its pictures to be collected: robots.txt (RFC 9309), X-Robots-Tag, TDM reservation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from curation.fetch.urls import canonicalise_path, quote_path
from curation.recipe.user_agent import product_token
from curation.schema import Status

MAX_BYTES = 500 * 1024
"""RFC 9309 2.5: a crawler must parse at least 500 KiB."""
REFUSALS = {"noai", "noimageai", "noindex", "noimageindex", "none"}
END_OF_LINE = re.compile(r"\r\n?|\n")
"""RFC 9309 2.2; `str.splitlines` would also end a comment, or a path, at U+2028 or a form feed."""
MAX_PATTERNS = 1_000
"""The most rules with `*` that are matched for every row; Robots says what happens to more."""
VALUED = re.compile(r"(?:max-image-preview|max-snippet|max-video-preview|unavailable_after)\s*[:=]\s*[^\s,;]*")
"""Directives that contain a colon and a value; every other word before a colon names a user agent."""
WORD = re.compile(r"([\w.*/-]+)\s*(:?)")
"""The date of unavailable_after has colons too, after words without letters, which name no agent."""


class Robots:
    """The rules of one robots.txt that concern us, given as (path pattern, allowed).

    Any number of rules without `*` is looked up. The longest MAX_PATTERNS rules with `*` are matched. Of more rules, a
    Disallow covers every path that begins like its part before `*`, and an Allow is ignored.
    """

    def __init__(
        self,
        rules: Iterable[tuple[str, bool]] = (),
        status: Status = Status.ROBOTS,
        reason: str = "robots.txt disallows the path",
    ) -> None:
        self.status, self.reason = status, reason
        """How a forbidden row ends; the status is temporary where robots.txt itself could not be read."""
        self._whole: dict[str, bool] = {}
        self._prefixes: dict[str, bool] = {}
        patterns: dict[tuple[str, bool], bool] = {}
        for pattern, allowed in rules:
            anchored = pattern.endswith("$")
            body = _normalise_path(pattern[:-1] if anchored else pattern, "$")
            if "*" in body:
                patterns[body, anchored] = patterns.get((body, anchored), False) or allowed
            else:
                _add_rule(self._whole if anchored else self._prefixes, body, allowed)
        # The longest pattern first, because it decides; of equally long ones, one that allows.
        longest = sorted(
            ((len(body) + anchored, allowed, body, anchored) for (body, anchored), allowed in patterns.items()),
            reverse=True,
        )
        self._patterns = [
            (size, allowed, body.split("*"), anchored) for size, allowed, body, anchored in longest[:MAX_PATTERNS]
        ]
        for _, allowed, body, _ in longest[MAX_PATTERNS:]:
            if not allowed:
                _add_rule(self._prefixes, body.partition("*")[0], allowed)
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)

    def allows(self, path: str) -> bool:
        """RFC 9309 2.2.2: the longest pattern that matches decides, allow wins a tie, no match allows."""
        if not (self._prefixes or self._patterns or self._whole):
            return True
        wanted = _normalise_path(path, "$*")
        length, allowed = self._look_up(wanted)
        for size, allows, pieces, anchored in self._patterns:
            if size < length:
                break
            if _matches(pieces, anchored, wanted):
                return allows or (size == length and allowed)
        return allowed

    def _look_up(self, path: str) -> tuple[int, bool]:
        """The length of the longest matching rule without `*` and whether it allows; (0, True) when none matches."""
        if path in self._whole:
            # Its final `$` counts, so this rule is longer than any prefix of `path`.
            return len(path) + 1, self._whole[path]
        for length in self._lengths:
            allowed = self._prefixes.get(path[:length]) if length <= len(path) else None
            if allowed is not None:
                return length, allowed
        return 0, True


def _add_rule(rules: dict[str, bool], path: str, allowed: bool) -> None:
    rules[path] = rules.get(path, False) or allowed


ALLOW_ALL = Robots()


def disallow_all(status: Status, reason: str) -> Robots:
    """Rules that allow nothing at the moment (RFC 9309 2.3.1.4), because of `reason`."""
    return Robots((("/", False),), status, reason)


@dataclass
class _Group:
    agents: list[str] = field(default_factory=list)
    rules: list[tuple[str, bool]] = field(default_factory=list)


def parse_robots(text: str, token: str) -> Robots:
    """The rules for product `token`: those of every group that names it, otherwise of the groups for `*`."""
    groups = _groups(text)
    for name in (token, "*"):
        chosen = [group for group in groups if name in group.agents]
        if chosen:
            return Robots(rule for group in chosen for rule in group.rules)
    return ALLOW_ALL


def _groups(text: str) -> list[_Group]:
    groups: list[_Group] = []
    naming = False
    for line in END_OF_LINE.split(text.lstrip("\ufeff")):
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
                groups[-1].rules.append((value, key == "allow"))
    return groups


def _normalise_path(text: str, literal: str) -> str:
    """A path or a rule in the form in which they are compared (RFC 9309 2.2.2); `literal` characters are escaped."""
    path = canonicalise_path(quote_path(text))
    for character in literal:
        if character in path:
            path = path.replace(character, f"%{ord(character):02X}")
    return path


def _matches(pieces: list[str], anchored: bool, path: str) -> bool:
    """Match the pieces between stars greedily: linear in time, unlike a regular expression with many stars."""
    first, *others = pieces
    if not path.startswith(first):
        return False
    position = len(first)
    for piece in others[:-1] if anchored else others:
        start = path.find(piece, position)
        if start < 0:
            return False
        position = start + len(piece)
    return not anchored or (path.endswith(others[-1]) and len(path) - len(others[-1]) >= position)


def find_refusal(headers: Iterable[tuple[str, str]], token: str) -> str | None:
    """The header among `headers` (name, value) that forbids us to keep the picture; None when there is none."""
    for name, value in headers:
        lower = name.lower()
        if lower == "tdm-reservation" and "1" in (part.strip() for part in value.split(",")):
            return f"tdm-reservation: {value.strip()}"
        if lower == "x-robots-tag" and _is_refusing_tag(value, token):
            return f"x-robots-tag: {value}"
    return None


def _is_refusing_tag(value: str, token: str) -> bool:
    """Whether one X-Robots-Tag refuses; `agent:` limits the directives after it to that agent."""
    concerned = True
    for word, colon in WORD.findall(VALUED.sub("", value.lower())):
        if concerned and word in REFUSALS:
            return True
        if colon and word not in REFUSALS and (word == "*" or any(c.isalpha() for c in word)):
            concerned = word == "*" or product_token(word) == token
    return False
