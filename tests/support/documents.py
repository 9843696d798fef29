"""The project's documents as data: headings, links, code blocks, inline code and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted(["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in PROJECT.glob("docs/*.md"))])
SHELL = "bash"
_FENCE = re.compile(r"^ *```(\w*)\s*$")
_OPERATORS = set("();<>|&")


@dataclass(frozen=True)
class Block:
    """A fenced code block, with the line of prose before it."""

    language: str
    text: str
    before: str


@dataclass(frozen=True)
class Page:
    """One document: its prose without code blocks, and the blocks."""

    name: str
    prose: str
    blocks: tuple[Block, ...]

    def links(self) -> list[str]:
        """Targets of all links that stay inside the project, `path#anchor`, `path` or `#anchor`."""
        targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", self.prose))
        return [target for target in targets if "://" not in target]

    def anchors(self) -> set[str]:
        """Anchors of the headings, as GitHub makes them."""
        found: set[str] = set()
        for heading in re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE):
            words = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "]", heading).lower())
            anchor = base = words.strip().replace(" ", "-")
            number = 0
            while anchor in found:
                number += 1
                anchor = f"{base}-{number}"
            found.add(anchor)
        return found

    def inline(self) -> list[str]:
        """Everything between single backticks, line breaks as spaces."""
        return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", self.prose)]

    def examples(self) -> dict[str, str]:
        """The Python files that the page shows, each after a line that is only its name."""
        named = ((re.fullmatch(r"`([\w/]+\.py)`:", block.before), block.text) for block in self.blocks)
        return {match[1]: text for match, text in named if match}


@cache
def page(name: str) -> Page:
    """The document at `name`, relative to the project."""
    prose: list[str] = []
    blocks: list[Block] = []
    code: list[str] | None = None
    language = ""
    for line in (PROJECT / name).read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        if fence and code is None:
            language, code = fence[1], []
        elif line.strip() == "```" and code is not None:
            before = next((text for text in reversed(prose) if text.strip()), "")
            blocks.append(Block(language, "\n".join(code) + "\n", before))
            code = None
        else:
            (prose if code is None else code).append(line)
    assert code is None, f"a code block of {name} does not end"
    return Page(name, "\n".join(prose), tuple(blocks))


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command of a piece of shell; lines are joined over backslashes and open quotes."""
    pending = ""
    for line in text.splitlines():
        pending += re.sub(r"(^|\s)#.*", "", line)
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = _words(pending)
        except ValueError:  # an open quotation goes on in the next line
            pending += " "
            continue
        pending = ""
        yield from _simple(words)
    assert not pending, f"a quotation does not end: {pending}"


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(sorted(_OPERATORS)))
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def _simple(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    for word in [*words, "&"]:
        if set(word) <= _OPERATORS:
            if command:
                yield command
            command = []
        elif command or not re.match(r"[A-Z_]+=", word):
            command.append(word.removeprefix(".venv/bin/"))
