"""What the page asks, and the answers: a summary of the root, pages of the wall, one picture, counts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from curation.browse.conditions import Condition, find_removed, find_words, parse_condition, without
from curation.browse.desk import Desk, StoppedError
from curation.browse.details import describe_picture, read_types
from curation.browse.marks import Marks
from curation.browse.neighbours import NUM_NEIGHBOURS, Neighbours, find_by_hash, find_by_vector, find_vector
from curation.browse.ordered import is_known
from curation.browse.pictures import Pictures, Shown, draw_placeholder
from curation.browse.summary import describe_root, describe_start
from curation.browse.wall import PAGE_ROWS, PLACE_COLUMNS, Page, Row, find_rows, read_page
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.report.safety import is_known_safe
from curation.report.selection import read_quantiles
from curation.storage import Root
from curation.tables import SAMPLES, embedded_units, embedding_tables

Asked = Mapping[str, Any]
Answer = TypeVar("Answer")
MAX_TEXT = 20_000
NO_VECTORS = "This root has no vectors of pictures: run `curate embed`."
MAX_CAPTION = 400
PAGE_SHARE = 0.4
"""Of the time of a question: after it a page is sent as far as it has come, and the page asks for more."""


class TextSearch(Protocol):
    """What turns texts into vectors of the space in which the pictures of `table` are."""

    @property
    def table(self) -> str: ...

    def embed(self, text: str) -> np.ndarray:
        """float32 `[d]`. Raises UserError for a text without a vector."""
        ...


class Answers:
    """Answers questions about one root. Pictures and counts do not wait for each other."""

    def __init__(
        self,
        wall: Desk,
        counts: Desk,
        pictures: Pictures,
        seconds: float,
        texts: TextSearch | None,
        marks: Marks | None,
    ) -> None:
        self._wall, self._counts, self._pictures, self._seconds = wall, counts, pictures, seconds
        self._texts, self._marks = texts, marks
        self._views = wall.manifest.views()
        self._tables = [
            table for table in embedding_tables(wall.manifest.root) if embedded_units(wall.manifest.root, table)
        ]
        self._captions = [name for name in wall.manifest.columns(SAMPLES) if name.startswith("caption")]
        self._questions: dict[str, Callable[[Asked], Awaitable[Any]]] = {
            "start": self._describe_start,
            "summary": self._describe_root,
            "wall": self._read_wall,
            "count": self._count,
            "picture": self._describe_picture,
            "near": self._find_near,
        }

    @classmethod
    def open(cls, root: Root, seconds: float, texts: TextSearch | None = None, marks: Marks | None = None) -> Answers:
        """Answers about `root`, given by the running event loop. Raises UserError for what is none or is damaged."""
        return cls(Desk(Manifest(root)), Desk(Manifest(root)), Pictures(root), seconds, texts, marks)

    async def close(self) -> None:
        """End the processes that decode, and close the manifests."""
        await self._pictures.close()
        self._wall.close()
        self._counts.close()

    async def answer(self, question: str, asked: Asked, *, is_change: bool = False) -> Any:
        """The answer to `question`. Raises UserError, in one sentence, for what cannot be answered.

        `is_change`: it asks to set a mark, which is the only change there is.
        """
        if question == "mark" and is_change:
            return self._set_mark(asked)
        if question not in self._questions or is_change:
            raise UserError(f"There is no question {question[:40]!r}.")
        return await self._questions[question](asked)

    async def show(self, uid: str, *, large: bool) -> Shown:
        """The picture of `uid`, or a drawing that says why there is none."""
        if not self._pictures.knows(uid):
            try:
                rows = await self._ask(self._wall, lambda desk: find_rows(desk, [uid]))
            except UserError:
                rows = []
            if not rows:
                return draw_placeholder("unknown")
            self._pictures.remember(rows)
        return await self._pictures.show(uid, large=large)

    async def _ask(self, desk: Desk, work: Callable[[Desk], Answer]) -> Answer:
        try:
            return await desk.ask(work, self._seconds)
        except StoppedError as error:
            raise UserError(
                f"This took longer than {self._seconds:g} seconds and was stopped: narrow the condition, leave ORDER "
                f"BY out, or start `curate browse` with more --seconds."
            ) from error

    async def _describe_start(self, _: Asked) -> Any:
        return describe_start(self._wall.manifest) | {
            "embeddings": self._tables,
            "understands": self._texts is not None,
            "marks": None if self._marks is None else {"file": str(self._marks.file), "uids": self._marks.list()},
        }

    async def _describe_root(self, _: Asked) -> Any:
        return await self._ask(self._counts, describe_root)

    def _read_condition(self, desk: Desk, asked: Asked) -> Condition:
        """What is asked for, without the rows of `minus`, which is "KIND:TEXT"."""
        kind = next((kind for kind in ("words", "removes") if asked.get(kind)), "where")
        wanted = self._parse(desk, kind, str(asked.get(kind, "")))
        if not asked.get("minus"):
            return wanted
        kind, _, text = str(asked["minus"]).partition(":")
        return without(wanted, self._parse(desk, kind, text))

    def _parse(self, desk: Desk, kind: str, text: str) -> Condition:
        if len(text) > MAX_TEXT:
            raise UserError(f"A condition may have {MAX_TEXT:,} characters, and this one has {len(text):,}.")
        if kind == "words":
            return find_words(text, self._captions)
        if kind == "removes":
            return find_removed(text, read_types(desk), read_quantiles(desk.manifest.root))
        return parse_condition(text, self._views)

    async def _read_wall(self, asked: Asked) -> Any:
        began, cursor, seconds = time.monotonic(), str(asked.get("cursor") or "") or None, self._seconds * PAGE_SHARE

        def read(desk: Desk) -> tuple[Condition, Page]:
            condition = self._read_condition(desk, asked)
            return condition, read_page(desk, condition, cursor, seconds)

        condition, page = await self._ask(self._wall, read)
        return {
            "rows": self.shown(page.rows, condition.names),
            "cursor": page.cursor,
            "num_units": page.num_units,
            "seconds": round(time.monotonic() - began, 3),
            "is_full": len(page.rows) >= PAGE_ROWS,
        }

    def _set_mark(self, asked: Asked) -> Any:
        uid = str(asked.get("uid", ""))
        if self._marks is None:
            raise UserError("Marks need a file: start `curate browse` with --marks marks.parquet.")
        if not self._pictures.knows(uid):
            raise UserError(f"{uid[:64]!r} was not shown, and is not marked.")
        try:
            self._marks.set(uid, asked.get("mark") is True)
        except OSError as error:
            raise UserError(f"The mark was not written to {self._marks.file} ({error.strerror or error}).") from error
        return {"num_marks": len(self._marks.list())}

    async def _find_near(self, asked: Asked) -> Any:
        """Pictures near to that of `like` in `by` (a table of vectors, or hash), or to the text `meaning`."""
        began = time.monotonic()
        found = await self._ask(self._wall, lambda desk: self._search(desk, asked, self._seconds * PAGE_SHARE))
        return {
            "rows": self.shown(found.rows, ("cosine", "bits")),
            "cursor": None,
            "num_units": found.num_units,
            "num_all": found.num_all,
            "seconds": round(time.monotonic() - began, 3),
        }

    def _search(self, desk: Desk, asked: Asked, seconds: float) -> Neighbours:
        if asked.get("marked"):
            uids = self._marks.list() if self._marks else []
            return Neighbours(rows=find_rows(desk, uids[:NUM_NEIGHBOURS]), num_units=0, num_all=0)
        if asked.get("meaning"):
            if self._texts is None:
                raise UserError("Searching by meaning needs the CLIP that embedded this root: name it by --model.")
            vector = self._texts.embed(str(asked["meaning"])[:MAX_TEXT])
            return find_by_vector(desk, self._texts.table, vector, seconds)
        uid, by = str(asked.get("like", "")), str(asked.get("by") or "")
        if by == "hash":
            return find_by_hash(desk, uid)
        if not self._tables or by and by not in self._tables:
            raise UserError(f"This root has no vectors {by!r}: run `curate embed`." if by else NO_VECTORS)
        table = by or self._tables[0]
        return find_by_vector(desk, table, find_vector(desk, table, uid), seconds)

    async def _count(self, asked: Asked) -> Any:
        def count(desk: Desk) -> Row:
            condition = self._read_condition(desk, asked)
            known = f" and {is_known(condition.order)}" if condition.order else ""
            sql = f"select count(*) as num_rows from manifest where {condition.sql}{known}"
            return desk.fetch(desk.manifest.query(sql))[0]

        return await self._ask(self._counts, count)

    async def _describe_picture(self, asked: Asked) -> Any:
        uid = str(asked.get("uid", ""))
        found = await self._ask(self._wall, lambda desk: describe_picture(desk, uid))
        row = {name: value for columns in found["columns"].values() for name, value in columns.items()}
        self._pictures.remember([row])
        members = zip(self.shown(found["group"]), found["group"], strict=True)
        group = [one | {name: member[name] for name in ("tier", "similarity")} for one, member in members]
        return found | {"group": group, "is_safe": is_known_safe(row)}

    def shown(self, rows: list[Row], names: tuple[str, ...] = ()) -> list[Row]:
        """`rows` as the page needs them: without places, with whether each picture is safe, and the columns `names`."""
        self._pictures.remember(rows)
        return [_show(row, names) for row in rows]


def _show(row: Row, names: tuple[str, ...]) -> Row:
    kept = {name: row.get(name) for name in ("uid", "source", "status", "kept", "reason")}
    lowered = {name.lower() for name in names} - {*kept, "caption", *PLACE_COLUMNS}
    return kept | {
        "caption": (row.get("caption") or "")[:MAX_CAPTION],
        "width": row.get("stored_width") or row.get("width"),
        "height": row.get("stored_height") or row.get("height"),
        "is_safe": is_known_safe(row),
        "values": {name: value for name, value in row.items() if name.lower() in lowered},
    }
