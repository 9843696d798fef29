"""The manifest that can show pictures; `from curation import Manifest` gives it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from curation.browse.conditions import Condition, parse_condition
from curation.browse.desk import Desk, StoppedError
from curation.browse.summary import describe_start
from curation.browse.wall import Row, read_page
from curation.errors import UserError
from curation.manifest import manifest as queries
from curation.manifest.manifest import Check
from curation.sheet.page import ContactSheet
from curation.sheet.pictures import make_pictures

__all__ = ["Check", "ContactSheet", "Manifest"]
MAX_PICTURES = 600


class Manifest(queries.Manifest):
    """As `curation.manifest.manifest.Manifest`, and with `show`."""

    def show(self, where: str | None = None, *, limit: int = 24, seconds: float = 20.0) -> ContactSheet:
        """The first `limit` pictures for which `where` holds: what stands after WHERE, with at most ORDER BY and one
        expression behind it. Without it, what the selection keeps, or where there is none, the pictures that came.

        The sheet shows itself in a notebook; elsewhere `save` writes it as a page. Pictures that no score calls safe
        are blurred until clicked. Raises UserError for SQL that does more than choose and order rows of the root's
        views, and for a query that takes longer than `seconds`.
        """
        if not 0 < limit <= MAX_PICTURES:
            raise UserError(f"A contact sheet has 1 to {MAX_PICTURES} pictures, not {limit}.")
        text = str(describe_start(self)["where"]) if where is None else where
        condition = parse_condition(text, self.views())
        with self._stopping(seconds):
            rows = list(islice(self._list_rows(condition, seconds), limit))
        title = f"{self.root.base} where {text}" if text.strip() else self.root.base
        return ContactSheet(title=title, rows=rows, names=condition.names, pictures=make_pictures(self.root, rows))

    def _list_rows(self, condition: Condition, seconds: float) -> Iterator[Row]:
        """The rows of `condition`, a page of the wall at a time."""
        desk, cursor = Desk(self), None
        while True:
            page = read_page(desk, condition, cursor, seconds)
            yield from page.rows
            cursor = page.cursor
            if cursor is None:
                return

    @contextmanager
    def _stopping(self, seconds: float) -> Iterator[None]:
        """End queries that are at work after `seconds`, and raise UserError."""
        timer = threading.Timer(seconds, self.connection.interrupt)
        timer.start()
        try:
            yield
        except StoppedError as error:
            raise UserError(
                f"This took longer than {seconds:g} seconds and was stopped: narrow the condition, leave ORDER BY out, "
                f"or give more seconds."
            ) from error
        finally:
            timer.cancel()
