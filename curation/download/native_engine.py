"""`download.engine = "native"`: ends the waiting rows of a unit with the client of curation/fetch."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

from curation.download.rounds import explain_failure
from curation.download.rows import failed_row, ok_row
from curation.download.unit_rows import UnitRows
from curation.fetch import politeness
from curation.fetch.client import RETRIED, UNREACHED, Client, Fetched
from curation.fetch.clock import Clock
from curation.fetch.schedule import Item, Schedule
from curation.fetch.urls import BadUrlError, Target, parse_url
from curation.images.decoder import Decoders
from curation.images.probe import PictureError
from curation.images.process import keep
from curation.schema import DownloadRow, SampleRow, Status


def fetch_rows(rows: UnitRows) -> None:
    """End every waiting row of a unit."""
    asyncio.run(_fetch_all(rows))


async def _fetch_all(rows: UnitRows) -> None:
    config = rows.config
    schedule = Schedule(config.max_per_host, config.host_interval_s)
    items = list(_fetchable_items(rows))
    schedule.start(items)
    decoders = Decoders(config)
    try:
        async with Client(config) as client, asyncio.TaskGroup() as group:
            fetcher = _Fetcher(client, schedule, decoders, rows)
            for _ in range(min(config.max_concurrency, len(items))):
                group.create_task(fetcher.run())
    except ExceptionGroup as failures:  # a task of ours failed, a full disk say: callers wait for its own error
        raise failures.exceptions[0] from failures
    finally:
        await decoders.close()


def _fetchable_items(rows: UnitRows) -> Iterator[Item]:
    """Items for the rows that can be fetched; rows that may not or cannot be fetched end here."""
    for sample in rows.allowed_samples():
        try:
            yield Item(sample, parse_url(sample["url"]))
        except BadUrlError as error:
            rows.end(sample, failed_row(sample["uid"], error.status, error.detail))


class _Fetcher:
    """Client, schedule and decoders, which all workers of one unit share."""

    def __init__(self, client: Client, schedule: Schedule, decoders: Decoders, rows: UnitRows) -> None:
        self._client, self._schedule, self._decoders, self._rows = client, schedule, decoders, rows

    async def run(self) -> None:
        """Fetch items until none is left."""
        while (item := await self._schedule.take()) is not None:
            verdict = self._schedule.verdict(item)
            if verdict is None:
                await self._fetch(item)
            else:
                self._end(item, failed_row(item.sample["uid"], *verdict))

    async def _fetch(self, item: Item) -> None:
        """Send one request, and act on its answer."""
        timeout_s = self._rows.config.timeout_s
        clock = Clock(timeout_s - item.spent_s)
        try:
            fetched = await self._client.ask(item.target, clock)
        except (OSError, asyncio.CancelledError):
            raise  # this machine, not the web: the unit stops and is run again
        except Exception as error:  # a row must end with a status whatever the web makes our libraries raise
            fetched = Fetched(Status.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        item.spent_s = timeout_s - clock.left_s
        self._tell_schedule(item, fetched)
        status = fetched.status
        if fetched.redirect is not None:
            self._follow(item, fetched.redirect)
        elif status in RETRIED and not fetched.final and item.tries < self._rows.config.retries:
            self._retry(item, fetched)
        elif status is not Status.OK:
            self._end(item, failed_row(item.sample["uid"], status, fetched.detail))
        else:
            await self._store(item, fetched)

    def _tell_schedule(self, item: Item, fetched: Fetched) -> None:
        """Tell the schedule what the answer says about the host: that it answers, or that it asks to wait."""
        status, wait_s = fetched.status, fetched.retry_after_s
        is_busy = status is Status.HTTP_429 or (status is Status.HTTP_5XX and wait_s is not None)
        self._schedule.record_end(item, (status, fetched.detail), status not in UNREACHED, is_busy)
        if not is_busy or wait_s is None:
            return
        if wait_s <= politeness.MAX_WAIT_S:
            self._schedule.pause(item.target.host, wait_s)
        else:
            fetched.detail, fetched.final = f"{fetched.detail}, Retry-After {wait_s:.0f} s", True
            self._schedule.give_up(item.target.host, (status, fetched.detail))

    def _follow(self, item: Item, target: Target) -> None:
        item.hops += 1
        if item.hops > self._rows.config.max_redirects:
            detail = f"more than {self._rows.config.max_redirects}"
            self._end(item, failed_row(item.sample["uid"], Status.TOO_MANY_REDIRECTS, detail))
        elif self._rows.opt_out.refuses_url(f"{target.origin}{target.path}"):
            detail = "redirects to what is on an opt-out list"
            self._end(item, failed_row(item.sample["uid"], Status.OPTED_OUT, detail))
        else:
            self._close_host(self._schedule.move(item, target))

    def _retry(self, item: Item, fetched: Fetched) -> None:
        """Schedule the next try of `item`, from its own URL on, after the wait that politeness or the host asks for."""
        item.tries += 1
        item.hops, item.spent_s = 0, 0.0
        wait_s = max(politeness.backoff_s(item.tries), fetched.retry_after_s or 0.0)
        if fetched.status is Status.HTTP_429:
            self._schedule.pause(item.target.host, wait_s)
        first = parse_url(item.sample["url"])
        if first.host != item.target.host:
            self._close_host(self._schedule.move(item, first, wait_s))
        else:
            item.target = first
            self._schedule.retry_later(item, wait_s)

    async def _store(self, item: Item, fetched: Fetched) -> None:
        self._schedule.release_host(item)
        sha256 = hashlib.sha256(fetched.body).hexdigest()
        try:
            row, data = await self._process(item.sample, fetched.body, sha256)
        except PictureError as error:
            row, data = failed_row(item.sample["uid"], error.status, explain_failure(error, sha256)), b""
        finally:
            fetched.give_back()
        self._end(item, row, data)

    async def _process(self, sample: SampleRow, body: bytes, sha256: str) -> tuple[DownloadRow, bytes]:
        """The row and the stored bytes of the picture `body`. Raises PictureError."""
        refusal = self._rows.opt_out.explain_sha256(sha256)
        if refusal is not None:
            raise PictureError(Status.OPTED_OUT, refusal)
        claimed = sample["claimed_sha256"]
        if claimed and claimed.lower() != sha256:
            raise PictureError(Status.HASH_MISMATCH, f"fetched {sha256}")
        stored = keep(body, self._rows.config) or await self._decoders.decode(body)
        return ok_row(sample["uid"], stored, sha256, len(body)), stored.data

    def _end(self, item: Item, row: DownloadRow, data: bytes = b"") -> None:
        self._rows.end(item.sample, row, data)
        self._close_host(self._schedule.finish(item))

    def _close_host(self, host: str | None) -> None:
        """Close the connections to `host`, which no row needs any more; None stands for no host."""
        if host is not None:
            self._client.close_host(host)
