r"""Regular expressions that mean the same in DuckDB (RE2) and in Spark (Java): a subset of both, written out anew.

`\w`, `\d`, `\s`, `.` and `$` have meanings of their own in each engine, and the functions differ in what they give for
no match and for an empty one. So a pattern is parsed, only what both know is let through, and it is written with
explicit classes. Java tries alternatives one after the other, so repetitions stand behind single characters and classes
only, of which unlimited ones are few: a caption must not hold up a task for hours.

Grammar: characters, `.` (all but a line feed), `[a-z]`, `[^a-z]`, `\d \D \w \W \s \S` (ASCII), `\n \t`, a backslash
before what is no letter or digit, `* + ? {n} {n,} {n,m}`, `(…)`, `|`, `^` and `$` (the ends of the text).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from curation.recipe.sql import ExpressionError, string_sql

MAX_REPEATS = 255
MAX_UNLIMITED = 4
"""Unlimited repetitions of a pattern: the time for one text grows with its length to this power."""
_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": r" \t\n\f\r"}
_ESCAPES = {"n": r"\n", "t": r"\t"}
_SPECIAL = r"\^$.|?*+()[]{}-&~#"
_REPEATS = re.compile(r"([*+?])|\{(\d{1,4})(,?)(\d{0,4})\}")


def match_sql(text: str, pattern: str) -> str:
    """SQL of whether `pattern` matches somewhere in `text` (SQL); null where the text is. Raises ExpressionError."""
    reader = _PatternReader(pattern)
    translated = reader.read()
    whole = rf"\A(?s:.*?)(?:{translated})(?s:.*)\z"
    # An extract gives the empty text for no match, so what the pattern says of the empty text is decided here.
    of_empty = "true" if re.search(translated.replace(r"\z", r"\Z"), "") else "false"
    extracted = f"regexp_extract({text}, {string_sql(whole)}, 0)"
    return f"case when {text} = '' then {of_empty} else {extracted} = {text} end"


@dataclass
class _PatternReader:
    pattern: str
    position: int = 0
    num_unlimited: int = 0

    def read(self) -> str:
        translated = self._alternatives()
        if self.position < len(self.pattern):
            raise self._error(f"{self._peek()!r} is unexpected")
        return translated

    def _peek(self) -> str:
        return self.pattern[self.position : self.position + 1]

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise self._error("it ends too early")
        self.position += 1
        return character

    def _error(self, fault: str) -> ExpressionError:
        return ExpressionError(f"pattern {self.pattern!r}: {fault} (docs/filters.md lists what patterns may hold)")

    def _alternatives(self) -> str:
        branches = [self._sequence()]
        while self._peek() == "|":
            self._take()
            branches.append(self._sequence())
        return "|".join(branches)

    def _sequence(self) -> str:
        parts = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._part())
        return "".join(parts)

    def _part(self) -> str:
        character = self._take()
        if character in "^$":
            return {"^": r"\A", "$": r"\z"}[character]
        if character == "(":
            return self._group()
        return f"{self._atom(character)}{self._repeats()}"

    def _group(self) -> str:
        if self._peek() == "?":
            if not self.pattern.startswith("?:", self.position):
                raise self._error("(?…) is not among them")
            self.position += 2
        inside = self._alternatives()
        if self._peek() != ")":
            raise self._error("a parenthesis is never closed")
        self._take()
        if self._peek() == "?":
            self._take()
            self._refuse_modifier()
            return f"(?:{inside})?"
        if self._peek() and self._peek() in "*+{":
            raise self._error("a group may be followed by ? alone; repeat characters and classes")
        return f"(?:{inside})"

    def _atom(self, character: str) -> str:
        if character == ".":
            return r"[^\n]"
        if character == "[":
            return self._class()
        if character == "\\":
            return self._escape()
        if character in "*+?{}])":
            raise self._error(f"{character!r} stands where nothing is to repeat or to close; write \\{character}")
        return _quote(character)

    def _escape(self) -> str:
        letter = self._take()
        if letter.lower() in _CLASSES:
            return f"[{'^' if letter.isupper() else ''}{_CLASSES[letter.lower()]}]"
        return self._escaped_character(letter)

    def _escaped_character(self, letter: str) -> str:
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if letter.isalnum():
            raise self._error(f"\\{letter} means other things in DuckDB and in Spark")
        return _quote(letter)

    def _class(self) -> str:
        negated = self._peek() == "^"
        self.position += negated
        parts: list[str] = []
        while self._peek() != "]":
            parts.append(self._class_item())
        self._take()
        if not parts:
            raise self._error("a class is empty")
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _class_item(self) -> str:
        first, is_single = self._class_member()
        if not (self._peek() == "-" and self.pattern[self.position + 1 : self.position + 2] not in ("", "]")):
            return first
        self._take()
        last, is_last_single = self._class_member()
        if not (is_single and is_last_single) or _value_of(first) > _value_of(last):
            raise self._error(f"{first}-{last} is no range")
        return f"{first}-{last}"

    def _class_member(self) -> tuple[str, bool]:
        """One member, and whether it is a single character."""
        character = self._take()
        if character == "[":
            raise self._error("a class holds another one; write \\[ for the character")
        if character != "\\":
            return _quote(character), True
        letter = self._take()
        if letter in _CLASSES:
            return _CLASSES[letter], False
        return self._escaped_character(letter), True

    def _repeats(self) -> str:
        found = _REPEATS.match(self.pattern, self.position)
        if not found:
            return ""
        self.position = found.end()
        self._refuse_modifier()
        symbol, least, comma, most = found.groups()
        if symbol == "?":
            return "?"
        counts = [int(count) for count in (least, most) if count]
        if any(count > MAX_REPEATS for count in counts) or counts != sorted(counts):
            raise self._error(f"{found[0]} repeats wrongly or more than {MAX_REPEATS} times")
        if symbol or (comma and not most):
            self.num_unlimited += 1
            if self.num_unlimited > MAX_UNLIMITED:
                raise self._error(f"it has more than {MAX_UNLIMITED} of * + {{n,}}")
        return found[0]

    def _refuse_modifier(self) -> None:
        if self._peek() and self._peek() in "*+?{":
            raise self._error(f"{self._peek()!r} follows another repetition")


def _quote(character: str) -> str:
    return {"\n": r"\n", "\t": r"\t"}.get(character) or (f"\\{character}" if character in _SPECIAL else character)


def _value_of(member: str) -> int:
    return ord({r"\n": "\n", r"\t": "\t"}.get(member, member[-1]))
