"""Lists of texts in files beside the recipe, for `column in file('blocked.txt')` in rules."""

from __future__ import annotations

import re
from pathlib import Path

from curation.recipe.sql import ExpressionError

MAX_ENTRIES = 50_000
"""They stand in the text of the SQL, which Spark's parser reads slowly."""
_COMMENT = re.compile(r"(?:^|\s)#.*")


def read_list(path: str) -> tuple[str, ...]:
    """The distinct entries of the file at `path`, one a line, sorted; `#` begins a comment, also after a space.

    Raises ExpressionError for a file that is not there, is no text, is empty or has more than MAX_ENTRIES entries.
    """
    if "://" in path:
        raise ExpressionError(f"{path} is no file of this machine: download it and name the copy")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise ExpressionError(f"there is no file {path}") from error
    except (OSError, UnicodeError) as error:
        raise ExpressionError(f"{path} cannot be read as UTF-8 text ({error})") from error
    entries = {entry for line in lines if (entry := _COMMENT.sub("", line).strip())}
    if not entries:
        raise ExpressionError(f"{path} has no entry")
    if len(entries) > MAX_ENTRIES:
        raise ExpressionError(
            f"{path} has {len(entries):,} entries, rules take {MAX_ENTRIES:,}: join longer lists as [scores.NAME]"
        )
    return tuple(sorted(entries))
