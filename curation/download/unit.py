"""One unit of the plan: fetch, check and store every picture, one row with a status for every uid.

The unit's tar and row file are published when all rows have ended. Until then finished rows stand in a spool on local
disk, so that a killed task goes on at the row where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.download import rounds
from curation.download.journal import Spool
from curation.download.log import UnitLog
from curation.download.opt_out import OptOut, load
from curation.fetch import politeness
from curation.fetch.client import RETRIED, UNREACHED, Client, Fetched
from curation.fetch.clock import Clock
from curation.fetch.schedule import Item, Schedule
from curation.fetch.urls import BadUrlError, Target, parse
from curation.images.decoder import Decoders
from curation.images.probe import PictureError
from curation.images.process import Stored, keep
from curation.recipe.config import DownloadConfig, Recipe
from curation.schema import DOWNLOADS, Status
from curation.settings import to_dict
from curation.shards import ShardWriter, picture_extension
from curation.storage import Root, fingerprint
from curation.tables import downloads_file, raw_shard, samples_file

MAX_DETAIL = 200
COLLECT_AFTER = 20_000
"""Objects that may come to life between two searches for cycles."""
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
    "measure",
)
"""Settings that decide what is stored; the others say how fast and how patiently, and may change between runs."""
Row = dict[str, Any]
SAMPLE_COLUMNS = ("uid", "url", "caption", "source", "domain", "claimed_sha256")
"""What a download needs to know of a sample."""
_json = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


def content_config(config: DownloadConfig) -> dict[str, Any]:
    """What is recorded beside the table, and must not change while it grows."""
    return {key: value for key, value in to_dict(config).items() if key in CONTENT_KEYS}


def resolved(recipe: Recipe) -> DownloadConfig:
    """The recipe's section with the opt-out lists' paths made full, ready to be sent to a task."""
    return replace(recipe.download, opt_out=tuple(recipe.resolve(path) for path in recipe.download.opt_out))


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    """A row makes a hundred objects and hardly a cycle: looking for cycles after every 700 takes a fiftieth of all."""
    usual = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@_seldom_collecting()
def download_unit(
    root: Root, unit: str, config: DownloadConfig, fetch_round: int = 0, fetch: Fetch | None = None
) -> None:
    """Download `unit` and publish it: all its rows in round 0, those that are due in a later one.

    `fetch` ends rows into the spool, our own client by default. Nothing to do where the round was already here.
    Raises OSError when the disk is full.
    """
    rel = downloads_file(unit)
    earlier: list[Row] = root.read_parquet(rel).to_pylist() if root.exists(rel) else []
    due = {row["uid"] for row in earlier if rounds.is_due(row, fetch_round)}
    if earlier and not due:
        return
    samples = root.read_parquet(samples_file(unit), SAMPLE_COLUMNS).to_pylist()
    waiting = [sample for sample in samples if sample["uid"] in due] if earlier else samples
    kept = [row for row in earlier if row["uid"] not in due]
    key = fingerprint([root.base, content_config(config), fetch_round])
    with _spool(root, f"{unit}-{key}.spool") as spool, UnitLog(root, unit, fetch_round, len(waiting)) as log:
        job = Job(waiting, spool, config, load(config.opt_out, root.scratch()), log)
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
            row = self.spool.rows.get(sample["uid"])
            if row is None:
                continue
            refused = self.refusal(sample, row["sha256"])  # the lists may have grown since the row ended
            if refused is None:
                self.log.ended(sample["domain"], row)
            else:
                self.end(sample, failed(sample["uid"], Status.OPTED_OUT, refused))

    def refusal(self, sample: Row, sha256: str | None = None) -> str | None:
        """Why `sample`, of whose picture `sha256` came, may not be fetched or kept; None when it may."""
        if self.opt_out.refuses_url(sample["url"]):
            return "on an opt-out list"
        if self.opt_out.refuses_sha256(sample["claimed_sha256"]) or self.opt_out.refuses_sha256(sha256):
            return "its sha256 is on an opt-out list"
        return None

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
    config = job.config
    schedule = Schedule(config.max_per_host, config.host_interval_s)
    items = list(_startable(job))
    schedule.start(items)
    decoders = Decoders(config)
    try:
        async with Client(config) as client, asyncio.TaskGroup() as group:
            task = _Task(client, schedule, decoders, job)
            for _ in range(min(config.max_concurrency, len(items))):
                group.create_task(task.work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    finally:
        await decoders.close()


def _startable(job: Job) -> Iterator[Item]:
    """Rows that have to be fetched; those that must not or cannot be end here."""
    for sample in job.waiting():
        refused = job.refusal(sample)
        if refused is not None:
            job.end(sample, failed(sample["uid"], Status.OPTED_OUT, refused))
            continue
        try:
            yield Item(sample, parse(sample["url"]))
        except BadUrlError as error:
            job.end(sample, failed(sample["uid"], error.status, error.detail))


class _Task:
    """What the workers of one unit share."""

    def __init__(self, client: Client, schedule: Schedule, decoders: Decoders, job: Job) -> None:
        self._client, self._schedule, self._decoders, self._job = client, schedule, decoders, job

    async def work(self) -> None:
        """Take items until none is left."""
        while (item := await self._schedule.take()) is not None:
            verdict = self._schedule.verdict(item)
            if verdict is None:
                await self._ask(item)
            else:
                self._end(item, failed(item.sample["uid"], *verdict))

    async def _ask(self, item: Item) -> None:
        """One request, and what follows from it."""
        timeout_s = self._job.config.timeout_s
        clock = Clock(timeout_s - item.spent_s)
        try:
            fetched = await self._client.ask(item.target, clock)
        except (OSError, asyncio.CancelledError):
            raise  # this machine, not the web: the unit stops and is run again
        except Exception as error:  # a row must end with a status whatever the web makes our libraries raise
            fetched = Fetched(Status.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        item.spent_s = timeout_s - clock.left_s
        status = fetched.status
        wait = fetched.retry_after_s
        busy = status is Status.HTTP_429 or (status is Status.HTTP_5XX and wait is not None)
        self._schedule.reached(item, (status, fetched.detail), status not in UNREACHED, busy)
        if busy and wait is not None:
            if wait <= politeness.MAX_WAIT_S:
                self._schedule.pause(item.target.host, wait)
            else:
                fetched.detail, fetched.final = f"{fetched.detail}, Retry-After {wait:.0f} s", True
                self._schedule.give_up(item.target.host, (status, fetched.detail))
        if fetched.redirect is not None:
            self._follow(item, fetched.redirect)
        elif status in RETRIED and not fetched.final and item.tries < self._job.config.retries:
            self._again(item, fetched)
        elif status is not Status.OK:
            self._end(item, failed(item.sample["uid"], status, fetched.detail))
        else:
            await self._store(item, fetched)

    def _follow(self, item: Item, target: Target) -> None:
        item.hops += 1
        if item.hops > self._job.config.max_redirects:
            detail = f"more than {self._job.config.max_redirects}"
            self._end(item, failed(item.sample["uid"], Status.TOO_MANY_REDIRECTS, detail))
        elif self._job.opt_out.refuses_url(f"{target.origin}{target.path}"):
            self._end(item, failed(item.sample["uid"], Status.OPTED_OUT, "redirects to what is on an opt-out list"))
        else:
            self._forget(self._schedule.move(item, target))

    def _again(self, item: Item, fetched: Fetched) -> None:
        item.tries += 1
        item.hops, item.spent_s = 0, 0.0
        wait = max(politeness.backoff_s(item.tries), fetched.retry_after_s or 0.0)
        if fetched.status is Status.HTTP_429:
            self._schedule.pause(item.target.host, wait)
        first = parse(item.sample["url"])
        if first.host != item.target.host:
            self._forget(self._schedule.move(item, first, wait))
        else:
            item.target = first
            self._schedule.later(item, wait)

    async def _store(self, item: Item, fetched: Fetched) -> None:
        self._schedule.rest(item)
        try:
            row, data = await self._stored(item.sample, fetched.body)
        except PictureError as error:
            row, data = failed(item.sample["uid"], error.status, error.detail), b""
        finally:
            fetched.give_back()
        self._end(item, row, data)

    async def _stored(self, sample: Row, body: bytes) -> tuple[Row, bytes]:
        sha256 = hashlib.sha256(body).hexdigest()
        if self._job.opt_out.refuses_sha256(sha256):
            raise PictureError(Status.OPTED_OUT, "its sha256 is on an opt-out list")
        claimed = sample["claimed_sha256"]
        if claimed and claimed.lower() != sha256:
            raise PictureError(Status.HASH_MISMATCH, f"fetched {sha256}")
        stored = keep(body, self._job.config) or await self._decoders.decode(body)
        return row_of(sample["uid"], stored, sha256, len(body)), stored.data

    def _end(self, item: Item, row: Row, data: bytes = b"") -> None:
        self._job.end(item.sample, row, data)
        self._forget(self._schedule.done(item))

    def _forget(self, host: str | None) -> None:
        if host is not None:
            self._client.forget(host)


def row_of(uid: str, stored: Stored, sha256: str, num_bytes: int) -> Row:
    """The row of a picture that came: `num_bytes` with `sha256` were fetched, `stored` goes into the shard."""
    return {
        "uid": uid,
        "status": Status.OK.value,
        "detail": None,
        "sha256": sha256,
        "pixel_sha256": stored.pixel_sha256,
        "phash": stored.phash,
        "format": stored.format,
        "num_bytes": num_bytes,
        "width": stored.width,
        "height": stored.height,
        "stored_width": stored.stored_width,
        "stored_height": stored.stored_height,
        "sharpness": stored.sharpness,
        "entropy": stored.entropy,
        "shard": None,
        "offset": None,
        "size": len(stored.data),
        "stored_sha256": stored.stored_sha256 or sha256,
        "fetch_round": None,
    }


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
        shard = raw_shard(unit, writer.sha256)
        if writer.members:
            root.publish(shard, path)
    for row in rows:
        row["shard"], row["fetch_round"] = shard if row["status"] == Status.OK else None, fetch_round
    if kept and writer.members:
        rounds.forget_derived(root, unit)
    root.publish_parquet(downloads_file(unit), _table(rounds.merged(kept, rows)))


def _table(rows: list[Row]) -> pa.Table:
    """As `pa.Table.from_pylist`, in half the time."""
    return pa.table([[row[name] for row in rows] for name in DOWNLOADS.names], schema=DOWNLOADS)


def _store(writer: ShardWriter, sample: Row, spool: Spool) -> Row:
    row = dict(spool.rows[sample["uid"]])
    if row["status"] != Status.OK:
        return row
    data = spool.picture(sample["uid"])
    caption = sample["caption"]
    described = {  # in order of the names
        "caption": caption,
        "height": row["stored_height"],
        "original_height": row["height"],
        "original_width": row["width"],
        "sha256": row["sha256"],
        "source": sample["source"],
        "uid": sample["uid"],
        "url": sample["url"],
        "width": row["stored_width"],
    }
    files = {
        picture_extension(data): data,
        "txt": (caption or "").encode(),
        "json": _json(described).encode(),
    }
    member = next(iter(writer.add(sample["uid"], files).values()))
    row["offset"], row["size"] = member.offset, member.size
    return row
