"""The ingest on this machine: processes read, sort and write rows, and DuckDB says which ones are repeated.

The files are the same, byte for byte, as those that jobs/spark_ingest.py makes on a cluster. Rows that one process does
not hold lie in a private folder on the disk of the root.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from curation.ingest.engine import DomainCounts, UnitCounts, UnitWork
from curation.ingest.parts import (
    Bucket,
    Buckets,
    Part,
    Sorted,
    read_part_files,
    read_uids,
    sort_part,
    write_bucket,
)
from curation.ingest.repeats import count_domains, find_repeats, sum_domains
from curation.metadata.inputs import Input
from curation.metadata.rows import choose_share, divide
from curation.progress import track
from curation.recipe.select_config import SelectConfig
from curation.scratch import open_folder
from curation.selection.rows import read_ahead
from curation.selection.streams import Streams, open_connection
from curation.storage import Root
from curation.workers import Workers

MIN_BUCKET, NUM_BUCKETS = 100_000, 100


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many rows a process holds: of a part, which is at most a share, and of a bucket; about."""

    share: int | None = None
    """None means as many as are a few shares for each process."""
    part: int = 250_000
    bucket: int | None = None
    """None means MIN_BUCKET, of many rows a hundredth of them, but no more than a part: a part has a batch for each
    bucket, so that many buckets would be many small batches, which take longer to write and to read."""

    def of_bucket(self, num_rows: int) -> int:
        """Rows of a bucket of an ingest of `num_rows`."""
        return self.bucket or min(self.part, max(MIN_BUCKET, num_rows // NUM_BUCKETS))


class LocalEngine:
    """Opens rows on this machine. An `Engine` of curation/ingest/engine.py."""

    def __init__(self, root: Root, limits: SelectConfig, sizes: Sizes = Sizes()) -> None:
        self._root, self._limits, self._sizes = root, limits, sizes

    @contextlib.contextmanager
    def open_rows(self, items: Sequence[Input]) -> Iterator[LocalRows]:
        """The rows of `items`, in files of a private folder once they were read."""
        with open_folder(self._root, "ingest") as folder, open_connection(self._limits, folder) as connection:
            connection.execute("set lock_configuration = true")
            streams = Streams(connection)
            with Workers(streams.num_threads) as workers:
                yield LocalRows(items, folder, streams, workers, self._sizes)


class LocalRows:
    """Rows in files of `folder`. `Rows` of curation/ingest/engine.py."""

    def __init__(self, items: Sequence[Input], folder: Path, streams: Streams, workers: Workers, sizes: Sizes) -> None:
        self._items, self._folder, self._streams, self._workers, self._sizes = items, folder, streams, workers, sizes
        self._num_threads = streams.num_threads
        self._parts: list[Part] | None = None

    def count_by_file(self) -> Mapping[int, int]:
        """Rows of each input, by its position."""
        counts = Counter[int]()
        for part in self._read():
            counts.update(part.by_position)
        return counts

    def count_domains(self, least: int) -> DomainCounts:
        """Rows by domain. Only those that are placed by themselves and the largest leave DuckDB."""
        self._read()
        return count_domains(self._streams, least)

    def write_units(self, work: UnitWork) -> list[UnitCounts]:
        """Sort the rows into buckets of units and publish samples and rejects; what each unit holds, in their order."""
        chosen = self._sort(work)
        inputs = pa.table({"source": [i.source for i in self._items], "file": [i.file for i in self._items]})
        writing = self._workers.map(partial(write_bucket, work.target, inputs), chosen)
        written = list[UnitCounts]()
        for units, published in track(writing, len(chosen), "ingest, written", "bucket"):
            written += units
            work.target.root.note_published(published)
        return written

    def _sort(self, work: UnitWork) -> list[Bucket]:
        """Mark repeats and sort all parts; the buckets in their order."""
        parts = self._read()
        num_rows = sum(part.by_position.total() for part in parts)
        num_units = max(1, self._sizes.of_bucket(num_rows) * work.spread.num_units // max(1, num_rows))
        buckets = Buckets(spread=work.spread, num_units=num_units, only=work.only)
        read_uids = partial(self._read_uids, parts)
        repeats = find_repeats(self._streams, read_uids, self._read_earlier(work), num_rows, len(parts))
        sorting = self._workers.map(partial(sort_part, buckets), zip(parts, repeats, strict=True))
        return list_buckets(track(sorting, len(parts), "ingest, sorted", "part"))

    def _read(self) -> list[Part]:
        """All parts, in the order of the ingest; they are read once."""
        if self._parts is None:
            parts = list[Part]()
            sum_domains(self._streams, self._read_parts(parts))
            self._parts = parts
        return self._parts

    def _read_parts(self, parts: list[Part]) -> Iterator[pa.Table]:
        """Append to `parts`, and give the counts of domains of each."""
        shares = divide(self._items, self._sizes.share or choose_share(self._items, self._num_threads))
        read = partial(read_part_files, self._folder, self._sizes.part)
        for found in track(self._workers.map(read, enumerate(shares)), len(shares), "ingest, read", "share"):
            for part, domains in found:
                parts.append(part)
                yield domains

    def _read_uids(self, parts: Sequence[Part]) -> Iterable[pa.Table]:
        shown = read_ahead(read_uids, list(enumerate(parts)), self._num_threads)
        return track(shown, len(parts), "ingest, repeats", "part")

    def _read_earlier(self, work: UnitWork) -> Iterable[pa.Table]:
        def read(file: str) -> pa.Table:
            return work.target.root.read_parquet(file, ["uid"])

        found = read_ahead(read, work.earlier, self._num_threads)
        return track(found, len(work.earlier), "ingest, earlier uids", "file")


def list_buckets(parts: Iterable[Sorted]) -> list[Bucket]:
    """Where the rows of each bucket lie, by its number; of one bucket in the order of `parts`."""
    places: dict[int, list[tuple[Path, int]]] = {}
    for part in parts:
        for number, bucket in enumerate(part.buckets):
            places.setdefault(bucket, []).append((part.path, number))
    return [Bucket(batches=tuple(places[number])) for number in sorted(places)]
