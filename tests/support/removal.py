"""A sealed root to forget rows of, an independent look for what should be gone, and removals that are killed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.recorder import sealing
from curation.sums.seal import seal_root
from tests.support import small_root
from tests.support.small_root import SmallRoot

DATE = "2026-11-28"


class KilledError(Exception):
    """Stands for a kill: nothing after it is done."""


def build(folder: Path) -> SmallRoot:
    """A sealed root with every stage behind it."""
    root = Root(folder)
    root.create(sealed=True)
    made = small_root.finish(root)
    seal_root(root, summed_tables(root))
    return made


def publish(root: Root, tables: Mapping[str, pa.Table] | None = None, records: Mapping[str, Any] | None = None) -> None:
    """Publish files of a sealed root as a stage does, with their sums."""
    named = {**(tables or {}), **(records or {})}
    with sealing(root, sorted({rel.partition("/")[0] for rel in named})) as recording:
        for rel, table in (tables or {}).items():
            recording.publish_parquet(rel, table)
        for rel, record in (records or {}).items():
            recording.publish_json(rel, record)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the root but those that a kill may leave in its scratch."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {str(path.relative_to(folder)): path for path in found}
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(".scratch")}


def find_left(folder: Path, made: SmallRoot, uids: Iterable[str]) -> list[str]:
    """Files in which a uid, URL, caption or picture of `uids` stands, as it lies there or decoded; without our scan."""
    wanted = {part for uid in uids for part in _parts(made, uid)}
    return [
        f"{path.relative_to(folder)}: {part[:40]!r}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for data in _decode(path)
        for part in wanted
        if part in data
    ]


def _parts(made: SmallRoot, uid: str) -> Iterator[bytes]:
    row = made.samples[uid]
    yield from (uid.encode(), row["url"].encode(), *([row["caption"].encode()] if row["caption"] else []))
    if uid in made.images:
        yield made.images[uid]
        yield made.downloads[uid]["sha256"].encode()


def _decode(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        yield repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode()
    elif path.suffix == ".tar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                yield member.name.encode()
                content = archive.extractfile(member)
                yield content.read() if content else b""


class Killing:
    """Ends the removal at its `number`-th change of a file (0 for the first), before or after the change.

    Patch `Root.put` and `Root.delete` with `put` and `delete`; `count` is the number of changes so far.
    """

    def __init__(self, number: int | None, *, after: bool) -> None:
        self.number, self.after, self.count = number, after, 0
        self._put, self._delete = Root.put, Root.delete

    def put(self, root: Root, rel: str, data: Any) -> None:
        """In the place of `Root.put`."""
        self._step(lambda: self._put(root, rel, data))

    def delete(self, root: Root, rel: str) -> None:
        """In the place of `Root.delete`."""
        self._step(lambda: self._delete(root, rel))

    def _step(self, change: Any) -> None:
        number = self.count
        self.count += 1
        if self.number is not None and number > self.number:
            raise KilledError  # nothing is written after a kill, also not while an error is handled
        if number == self.number and not self.after:
            raise KilledError
        change()
        if number == self.number:
            raise KilledError
