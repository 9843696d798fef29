"""Rows with the bounds of `balance`, in DuckDB alone."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from curation.recipe.balance import MACROS_IN_DUCKDB, Balance, bound_sql, count_entries_sql


def join_bounds_in_duckdb(connection: duckdb.DuckDBPyConnection, rows: str, balances: Iterable[Balance]) -> None:
    """Let the table `rows`, which has a column `uid`, have the bound of each of `balances` as a column."""
    for macro in MACROS_IN_DUCKDB:
        connection.execute(macro)
    for balance in balances:
        connection.execute(f"create or replace temp table {balance.counts} as {count_entries_sql(rows, balance)}")
        bounds = bound_sql(rows, balance, "uid")
        table = connection.sql(f"select * from {rows} left join ({bounds}) as bounds using (uid)").to_arrow_table()
        connection.register(rows, table)
