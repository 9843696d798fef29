"""One unit of the plan: fetch, check and store every picture, one row with a status for every uid.

The unit's tar and row file are published when all rows have ended. Until then finished rows stand in a spool on local
disk, so that a killed task goes on at the row where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation import rounds
from curation.config import DownloadConfig, Recipe
from curation.download_log import UnitLog
from curation.fetch.client import Client
from curation.images.decoder import Decoder
from curation.images.probe import PictureError
from curation.opt_out import OptOut, load
from curation.schema import DOWNLOADS, Status
from curation.settings import to_dict
from curation.shards import ShardWriter, picture_extension
from curation.spool import Spool
from curation.storage import Root, fingerprint

MAX_DETAIL = 200
CONTENT_KEYS = (
    "engine",
    "image_size",
    "resize_mode",
    "only_if_bigger",
    "encode_format",
    "encode_quality",
    "max_bytes",
    "max_pixels",
    "max_frames",
    "formats",
    "obey_robots",
)
"""Settings that decide what is stored; the others say how fast and how patiently, and may change between runs."""
Row = dict[str, Any]


def content_config(config: DownloadConfig) -> dict[str, Any]:
    """What is recorded beside the table, and must not change while it grows."""
    return {key: value for key, value in to_dict(config).items() if key in CONTENT_KEYS}


def resolved(recipe: Recipe) -> DownloadConfig:
    """The recipe's section with the opt-out lists' paths made full, ready to be sent to a task."""
    return replace(recipe.download, opt_out=tuple(recipe.resolve(path) for path in recipe.download.opt_out))


def download_unit(
    root: Root, unit: str, config: DownloadConfig, fetch_round: int = 0, fetch: Fetch | None = None
) -> None:
    """Download `unit` and publish it: all its rows in round 0, those that are due in a later one.

    `fetch` ends rows into the spool, our own client by default. Nothing to do where the round was already here.
    Raises OSError when the disk is full.
    """
    rel = f"downloads/{unit}.parquet"
    earlier: list[Row] = root.read_parquet(rel).to_pylist() if root.exists(rel) else []
    due = {row["uid"] for row in earlier if rounds.is_due(row, fetch_round)}
    if earlier and not due:
        return
    samples = root.read_parquet(f"samples/{unit}.parquet").to_pylist()
    waiting = [sample for sample in samples if sample["uid"] in due] if earlier else samples
    kept = [row for row in earlier if row["uid"] not in due]
    key = fingerprint([root.base, content_config(config), fetch_round])
    with _spool(root, f"{unit}-{key}.spool") as spool, UnitLog(root, unit, fetch_round, len(waiting)) as log:
        job = Job(waiting, spool, config, load(config.opt_out), log)
        (fetch or fetch_rows)(job)
        publish_unit(root, unit, waiting, spool, kept, fetch_round)
        spool.forget()


def _spool(root: Root, name: str) -> Spool:
    """The unit's journal, opened, or a private one where another attempt at the unit holds it (speculation)."""
    try:
        return Spool(root.scratch() / name).open()
    except BlockingIOError:
        return Spool(Path(tempfile.mkstemp(prefix=name, dir=root.scratch())[1])).open()


@dataclass(frozen=True)
class Job:
    """The rows of one unit that have to end, and what is needed for it."""

    samples: list[Row]
    spool: Spool
    config: DownloadConfig
    opt_out: OptOut
    log: UnitLog

    def __post_init__(self) -> None:
        for sample in self.samples:
            if sample["uid"] in self.spool.rows:
                self.log.ended(sample["domain"], self.spool.rows[sample["uid"]])

    def waiting(self) -> list[Row]:
        """Samples that the spool does not hold yet."""
        return [sample for sample in self.samples if sample["uid"] not in self.spool.rows]

    def end(self, sample: Row, row: Row, data: bytes = b"") -> None:
        """The one way in which a row ends: into the journal, and counted."""
        self.spool.add(row, data)
        self.log.ended(sample["domain"], row)


Fetch = Callable[[Job], None]


def fetch_rows(job: Job) -> None:
    """End every waiting row by our own client."""
    asyncio.run(_fetch_all(job))


async def _fetch_all(job: Job) -> None:
    config, waiting = job.config, iter(job.waiting())
    decoders: asyncio.Queue[Decoder] = asyncio.Queue()
    started = [Decoder(config) for _ in range(config.num_decoders)]
    for decoder in started:
        decoders.put_nowait(decoder)
    async with Client(config) as client:
        task = _Task(client, decoders, job)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(config.max_concurrency):
                    group.create_task(task.work(waiting))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        finally:
            for decoder in started:
                await decoder.close()


class _Task:
    """What the workers of one unit share."""

    def __init__(self, client: Client, decoders: asyncio.Queue[Decoder], job: Job) -> None:
        self._client, self._decoders, self._job, self._opt_out = client, decoders, job, job.opt_out

    async def work(self, waiting: Iterator[Row]) -> None:
        """Take samples from the shared iterator until none is left."""
        for sample in waiting:
            self._job.end(sample, *await self._end(sample))

    async def _end(self, sample: Row) -> tuple[Row, bytes]:
        try:
            return await self._download(sample)
        except PictureError as error:
            return failed(sample["uid"], error.status, error.detail), b""
        except OSError:
            raise  # the disk, not the web: the unit stops and is run again
        except Exception as error:  # a row must end with a status whatever the web makes our libraries raise
            return failed(sample["uid"], Status.INTERNAL_ERROR, f"{type(error).__name__}: {error}"), b""

    async def _download(self, sample: Row) -> tuple[Row, bytes]:
        if self._opt_out.refuses_url(sample["url"]):
            raise PictureError(Status.OPTED_OUT, "on an opt-out list")
        fetched = await self._client.fetch(sample["url"])
        if fetched.status is not Status.OK:
            raise PictureError(fetched.status, fetched.detail)
        sha256 = hashlib.sha256(fetched.body).hexdigest()
        if sha256 in self._opt_out.sha256s:
            raise PictureError(Status.OPTED_OUT, "its sha256 is on an opt-out list")
        claimed = sample["claimed_sha256"]
        if claimed and claimed.lower() != sha256:
            raise PictureError(Status.HASH_MISMATCH, f"fetched {sha256}")
        decoder = await self._decoders.get()
        try:
            stored = await decoder.decode(fetched.body)
        finally:
            self._decoders.put_nowait(decoder)
        row = {name: getattr(stored, name, None) for name in DOWNLOADS.names}
        row |= {"uid": sample["uid"], "status": Status.OK.value, "detail": None, "sha256": sha256}
        row |= {"num_bytes": len(fetched.body), "size": len(stored.data)}
        return row | {"stored_sha256": hashlib.sha256(stored.data).hexdigest()}, stored.data


def failed(uid: str, status: Status, detail: str) -> Row:
    """The row of a uid whose picture did not come."""
    empty: Row = dict.fromkeys(DOWNLOADS.names)
    return empty | {"uid": uid, "status": status.value, "detail": detail[:MAX_DETAIL] or None}


def publish_unit(
    root: Root, unit: str, samples: list[Row], spool: Spool, kept: Sequence[Row] = (), fetch_round: int = 0
) -> None:
    """Write the pictures of `samples` into a tar under its content's name, then the unit's row file.

    `kept` are the rows of an earlier round that this one leaves alone.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="raw-", dir=root.scratch()) as folder:
        path = Path(folder, "shard.tar")
        with ShardWriter(path) as writer:
            for sample in sorted(samples, key=lambda s: s["uid"]):
                rows.append(_store(writer, sample, spool))
        shard = f"raw/{unit}-{writer.sha256[:16]}.tar"
        if writer.members:
            root.publish(shard, path)
    for row in rows:
        row |= {"shard": shard if row["status"] == Status.OK else None, "fetch_round": fetch_round}
    if kept and writer.members:
        rounds.forget_derived(root, unit)
    table = pa.Table.from_pylist(rounds.merged(kept, rows), schema=DOWNLOADS)
    root.publish_parquet(f"downloads/{unit}.parquet", table)


def _store(writer: ShardWriter, sample: Row, spool: Spool) -> Row:
    row = dict(spool.rows[sample["uid"]])
    if row["status"] != Status.OK:
        return row
    data = spool.picture(sample["uid"])
    described = {
        "uid": sample["uid"],
        "url": sample["url"],
        "caption": sample["caption"],
        "source": sample["source"],
        "width": row["stored_width"],
        "height": row["stored_height"],
        "original_width": row["width"],
        "original_height": row["height"],
        "sha256": row["sha256"],
    }
    files = {
        picture_extension(data): data,
        "txt": (sample["caption"] or "").encode(),
        "json": json.dumps(described, ensure_ascii=False, sort_keys=True).encode(),
    }
    member = next(iter(writer.add(sample["uid"], files).values()))
    return row | {"offset": member.offset, "size": member.size}
