"""One manifest and the thread that asks it: a question ends with its answer, its time limit, or its reader."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from curation.errors import UserError
from curation.manifest.manifest import Manifest, explain_error

Answer = TypeVar("Answer")
INTERRUPT_EVERY_S = 0.05


class StoppedError(Exception):
    """The time of a question was over before its answer was there."""


class Desk:
    """Answers one question at a time about `manifest`, which no other thread may ask meanwhile."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.bounds: dict[tuple[str, str], Mapping[str, Any] | None] = {}
        """Which values units have in a column (table, name), as far as that was asked (curation/browse/ordered.py)."""
        self._pool = ThreadPoolExecutor(1)
        self._turn = asyncio.Lock()
        self._stopped = threading.Event()

    async def ask(self, work: Callable[[Desk], Answer], seconds: float) -> Answer:
        """What `work` returns. Raises StoppedError after `seconds`; a reader that goes away ends it too."""
        async with self._turn:
            self._stopped.clear()
            answer = asyncio.get_running_loop().run_in_executor(self._pool, work, self)
            try:
                return await asyncio.wait_for(asyncio.shield(answer), seconds)
            except TimeoutError as error:
                raise StoppedError from error
            finally:
                await self._end(answer)

    async def _end(self, answer: asyncio.Future[Any]) -> None:
        self._stopped.set()
        while not answer.done():
            self.manifest.connection.interrupt()
            await asyncio.wait([answer], timeout=INTERRUPT_EVERY_S)
        if not answer.cancelled():
            answer.exception()  # it has been told already, or nobody waits for it

    @property
    def is_stopped(self) -> bool:
        """Whether the work that is being done has lost its reader or its time."""
        return self._stopped.is_set()

    def fetch(self, relation: duckdb.DuckDBPyRelation) -> list[dict[str, Any]]:
        """The rows of `relation`. Raises UserError for what DuckDB finds while it reads them, and StoppedError."""
        try:
            names = relation.columns
            return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
        except duckdb.InterruptException as error:
            raise StoppedError from error
        except (duckdb.Error, pa.ArrowException, OverflowError) as error:
            raise UserError(f"DuckDB refuses the query: {explain_error(error)}") from error

    def close(self) -> None:
        """End the thread, then the manifest."""
        self._pool.shutdown()
        self.manifest.close()
