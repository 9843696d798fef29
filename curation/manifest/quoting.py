"""Names and texts of a root inside SQL: a root may come from somebody else, so nothing of it is pasted as it is."""

from __future__ import annotations

import re

import duckdb

from curation.errors import UserError
from curation.object_store import GLOB

MAX_NAME = 255
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"]')


def quote_identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """`text` as a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_path(path: str) -> str:
    """`path` as a literal that DuckDB's readers take for this one file: its glob characters stand for themselves."""
    return quote_text(escape_glob(path))


def escape_glob(path: str) -> str:
    """`path` with each glob character inside a character class of its own."""
    return GLOB.sub(r"[\1]", path)


def check_names(names: list[str], place: str) -> None:
    """Raise UserError for names of columns or tables that no filter writes: control characters, quotes, twice one name.

    DuckDB's names are equal in upper and lower case.
    """
    for name in names:
        if not name or len(name) > MAX_NAME or _UNSAFE.search(name):
            raise UserError(f"{place} has a name that no filter writes, {name[:80]!r}: remove the file or folder.")
    lowered = [name.lower() for name in names]
    repeated = next((name for name in names if lowered.count(name.lower()) > 1), None)
    if repeated is not None:
        raise UserError(f"{place} has {repeated!r} twice (in upper or lower case): remove one of them.")


def lock(connection: duckdb.DuckDBPyConnection, folder: str, files: list[str]) -> None:
    """Let queries of `connection` read below `folder` and `files` only, and change nothing of that.

    No extension is installed or loaded, and no Python variable is a table.
    """
    folders = dict.fromkeys((f"{folder}/", f"{escape_glob(folder)}/"))
    paths = dict.fromkeys([*files, *map(escape_glob, files)])
    for setting, values in (("allowed_directories", folders), ("allowed_paths", paths)):
        connection.execute(f"set {setting} = [{', '.join(map(quote_text, values))}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


def forbid_extensions(connection: duckdb.DuckDBPyConnection) -> None:
    """Let no query install or load an extension, read a stored secret, or take a Python variable for a table."""
    for setting in (
        "autoinstall_known_extensions",
        "autoload_known_extensions",
        "allow_community_extensions",
        "allow_persistent_secrets",
        "python_enable_replacements",
    ):
        connection.execute(f"set {setting} = false")
