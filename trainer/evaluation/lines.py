"""Text files of a set, in which a line's place counts: line 3 of the classes' names is class 2."""

from __future__ import annotations

from pathlib import Path

from curation.errors import UserError


def split_lines(text: str) -> list[str]:
    """The lines of `text`, blank ones too, without white space at their ends; a "\\n" at the end begins no further one.

    `str.splitlines` would also end lines at U+2028, U+0085 or a vertical tab, which stand inside names and captions.
    """
    lines = [line.strip() for line in text.removeprefix("\ufeff").split("\n")]
    return lines if lines[-1] else lines[:-1]


def read_lines(file: Path) -> list[str]:
    """The lines of `file`, as `split_lines` gives them. Raises UserError when it cannot be read as UTF-8 text."""
    try:
        return split_lines(file.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error}).") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error}).") from error


def read_names(file: Path) -> tuple[str, ...]:
    """A name a line, whose place is its number. Raises UserError for a blank line before the last name."""
    lines = read_lines(file)
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        number = lines.index("")
        raise UserError(f"Line {number + 1} of {file} is blank, so class {number} has no name: write one there.")
    return tuple(lines)


def read_word(file: Path, default: str) -> str:
    """The first line of `file` that is not blank, or `default` without one. Raises UserError."""
    return next(filter(None, read_lines(file) if file.is_file() else ()), default)
