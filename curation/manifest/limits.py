"""What DuckDB may hold for a query, and where it puts the rest."""

from __future__ import annotations

import uuid

import duckdb

from curation.errors import UserError
from curation.manifest.quoting import quote_text
from curation.private_folder import make_private_folder

MIN_GB, MAX_GB = 0.1, 65_536.0
OUT_OF_MEMORY = "Out of Memory Error"
"""How DuckDB's message begins, in the errors of Arrow too."""


def limit_memory(connection: duckdb.DuckDBPyConnection, memory_gb: float | None) -> None:
    """Let `connection` hold `memory_gb`; None leaves it at four fifths of what the machine or its container has.

    The rest lies in a folder of this user's that DuckDB makes when it needs it and deletes with the connection; where
    none can be made, nothing goes to disk. Raises UserError for a number that is no such size.
    """
    if memory_gb is not None:
        if not MIN_GB <= memory_gb <= MAX_GB:
            raise UserError(f"A query may hold {MIN_GB} to {MAX_GB:,.0f} GB of memory, not {memory_gb:g}.")
        connection.execute(f"set memory_limit = '{round(memory_gb * 1e9)}B'")
    try:
        folder = str(make_private_folder() / f"query-{uuid.uuid4().hex}")
    except OSError:  # an account that may write nowhere can still ask what fits into memory
        folder = ""
    connection.execute(f"set temp_directory = {quote_text(folder)}")


def count_threads(connection: duckdb.DuckDBPyConnection) -> int:
    """The threads that `connection` has."""
    ((number,),) = connection.execute("select current_setting('threads')").fetchall()
    return int(number)
