"""The words of a condition, and a reader that takes them one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from curation.recipe.sql import ExpressionError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|(?P<string>'(?:[^']|'')*')"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<symbol><=|>=|<>|!=|[-+*/%=<>(),]))"
)
_DOUBLE_QUOTED = re.compile(r'"([^"]*)"?')
Item = TypeVar("Item")


class TokenReader:
    """The tokens of `text`, each (kind, text) with kind number, string, name or symbol. Raises ExpressionError."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    @property
    def is_at_end(self) -> bool:
        return self._next >= len(self._tokens)

    def peek(self, *words: str) -> bool:
        """Whether `words` (in lower case) follow."""
        following = self._tokens[self._next : self._next + len(words)]
        return [t[1].lower() for t in following if t[0] != "string"] == list(words)

    def accept(self, *words: str) -> bool:
        """Take `words` if they follow, and say whether they did."""
        follows = self.peek(*words)
        self._next += len(words) if follows else 0
        return follows

    def expect(self, *words: str) -> None:
        """Take `words`. Raises ExpressionError when something else follows."""
        if not self.accept(*words):
            raise ExpressionError(f"{' '.join(words)!r} is missing before {self.describe_next()}")

    def take(self) -> tuple[str, str]:
        """The next token, a string without its quotes. Raises ExpressionError at the end."""
        if self.is_at_end:
            raise ExpressionError("it ends too early")
        kind, text = self._tokens[self._next]
        self._next += 1
        return kind, text[1:-1].replace("''", "'") if kind == "string" else text

    def take_string(self, what: str) -> str:
        """The text in quotes that follows. Raises ExpressionError with `what` is needed when something else does."""
        kind, text = self.take()
        if kind != "string":
            raise ExpressionError(f"{what} in single quotes is needed where it has {text!r}")
        return text

    def take_list(self, item: Callable[[], Item]) -> list[Item]:
        """Items separated by commas, up to and with the closing parenthesis."""
        items = [item()]
        while self.accept(","):
            items.append(item())
        self.expect(")")
        return items

    def describe_next(self) -> str:
        return "the end" if self.is_at_end else repr(self._tokens[self._next][1])


def _tokens(text: str) -> Iterable[tuple[str, str]]:
    position = 0
    while rest := text[position:].lstrip():
        found = _TOKEN.match(text, position)
        if not found or rest.startswith("--"):  # a comment in SQL, not minus minus
            raise ExpressionError(_explain_stranger(rest))
        yield str(found.lastgroup), found[str(found.lastgroup)]
        position = found.end()


def _explain_stranger(rest: str) -> str:
    """What is wrong with text that begins with no token."""
    quoted = _DOUBLE_QUOTED.match(rest)
    if quoted:
        return f"{quoted[0]} is in double quotes, which SQL keeps for names: write text as '{quoted[1]}', names bare"
    if rest[0] == "'":
        return f"the quote of {rest[:20]!r} is never closed ('' is a quote inside of quotes)"
    return f"{rest[0]!r} is unexpected there"
