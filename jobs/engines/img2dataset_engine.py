"""`download.engine = "img2dataset"`: img2dataset's own Downloader, Resizer and writer fetch the rows of a unit.

img2dataset gets the rows in batches and reaches the web through jobs/engines/img2dataset_guard.py. Its shard and its
parquet file are read as an adopted folder is, every picture is decoded again, and every row ends with a status. Rows
that img2dataset loses are found by counting; a row that kills it is found by halving the batch.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from curation.adopt.folder import read_rows
from curation.adopt.messages import classify_message
from curation.adopt.pictures import AS_IT_IS, describe_picture
from curation.adopt.rows import SUCCESS, AdoptedRow
from curation.adopt.shard import Shard
from curation.download.rows import failed_row
from curation.download.unit_rows import UnitRows
from curation.errors import UserError
from curation.images.decoder import Decoder
from curation.images.probe import PictureError
from curation.recipe.config import DownloadConfig
from curation.schema import DownloadRow, SampleRow, Status
from curation.shards import read_member
from curation.storage import Root
from jobs.engines.img2dataset_refusals import parse_refusal
from jobs.engines.img2dataset_worker import COLUMNS

ROWS_PER_BATCH = 1_000
START_TIMEOUT_S = 120.0
BATCH_GRACE_S = 120.0


def fetch_rows(rows: UnitRows) -> None:
    """End every waiting row of a unit with img2dataset. Raises UserError when img2dataset does not start."""
    samples = rows.allowed_samples()
    if not samples:
        return
    with Worker(rows) as worker:
        for start in range(0, len(samples), ROWS_PER_BATCH):
            run_batch(rows, worker, samples[start : start + ROWS_PER_BATCH])


def run_batch(rows: UnitRows, worker: Worker, samples: list[SampleRow]) -> None:
    """End the rows of `samples` as img2dataset reports them, and as lost where it reports nothing or died."""
    with tempfile.TemporaryDirectory(prefix="img2dataset-", dir=worker.scratch) as folder:
        is_whole = worker.run(Path(folder), samples)
        left = asyncio.run(end_reported_rows(rows, Path(folder), {sample["uid"]: sample for sample in samples}))
    if is_whole or len(samples) == 1:
        lost = f"img2dataset was given {len(samples)} rows and names {len(samples) - len(left)}: not this one"
        detail = lost if is_whole else "img2dataset died of it"
        for sample in left:
            rows.end(sample, failed_row(sample["uid"], Status.LOST_BY_ENGINE, detail))
        return
    middle = -(-len(left) // 2)
    for half in (left[:middle], left[middle:]):
        if half:
            run_batch(rows, worker, half)


async def end_reported_rows(rows: UnitRows, folder: Path, samples: dict[str, SampleRow]) -> list[SampleRow]:
    """End the rows that the shard in `folder` names; returns the samples that it does not name."""
    if not Path(folder, "00000.tar").exists():
        return list(samples.values())
    root, shard = Root(folder), Shard(source="", path="00000.tar")
    try:
        found = read_rows(root, shard).table.to_pylist()
    except UserError:  # img2dataset died before it wrote a member
        return list(samples.values())
    facts = json.loads(root.read_bytes("fetched.json")) if root.exists("fetched.json") else {}
    decoder = Decoder(AS_IT_IS)
    try:
        for row in found:
            if row["uid"] not in samples:
                continue
            if row["status"] == SUCCESS and row["offset"] is None:
                continue
            data = read_member(root, shard.path, row["offset"], row["size"]) if row["offset"] is not None else b""
            rows.end(samples.pop(row["uid"]), *await _make_row(row, data, facts, decoder))
    finally:
        await decoder.close()
    return list(samples.values())


async def _make_row(row: AdoptedRow, data: bytes, facts: dict[str, Any], decoder: Decoder) -> tuple[DownloadRow, bytes]:
    """The row of downloads and the bytes to be stored, for one row that img2dataset names."""
    if row["status"] != SUCCESS:
        message = row["error_message"]
        status, detail = parse_refusal(message) or (classify_message(row["status"], message), message)
        return failed_row(row["uid"], status, detail), b""
    try:
        stored = await decoder.decode(data)
    except PictureError as error:
        return failed_row(row["uid"], error.status, error.detail), b""
    described = describe_picture(row, data, stored)
    described["size"] = len(data)
    if row["sha256"] in facts:
        described["num_bytes"], described["format"] = facts[row["sha256"]]
    return described, data


class Worker:
    """The process in which img2dataset runs, started again after it died. Use it as a context manager."""

    def __init__(self, rows: UnitRows) -> None:
        self._config: DownloadConfig = rows.config
        self.scratch = rows.journal.path.parent
        self._payload = pickle.dumps((rows.config, rows.opt_out))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        self._files = tempfile.TemporaryDirectory(prefix="img2dataset-", dir=self.scratch)
        self._log = Path(self._files.name, "stderr")
        Path(self._files.name, "config").write_bytes(self._payload)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        self._files.cleanup()

    def run(self, folder: Path, samples: list[SampleRow]) -> bool:
        """Let img2dataset write a shard of `samples` into `folder`; False when it failed or died."""
        rows = {column: [dict(sample)[column] for sample in samples] for column in COLUMNS}
        feather = folder / "rows.feather"
        schema = pa.schema([(column, pa.string()) for column in COLUMNS])
        with pa.ipc.new_file(str(feather), schema) as writer:
            writer.write_table(pa.table(rows, schema=schema))
        claims: dict[str, list[str]] = {}
        for sample in samples:
            if sample["claimed_sha256"]:
                claims.setdefault(sample["url"], []).append(sample["claimed_sha256"].lower())
        batch = {"folder": str(folder), "feather": str(feather), "num_rows": len(samples), "claims": claims}
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(batch).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            self._kill()
            return False
        answer = self._read_answer(process, self._max_batch_s(len(samples)))
        if answer not in (b"done", b"failed"):
            self._kill()
        return answer == b"done"

    def _max_batch_s(self, num_rows: int) -> float:
        """The longest that a batch may take: every fetch has a deadline, and all rows may belong to one host."""
        config = self._config
        turns = -(-num_rows // min(config.max_per_host, config.max_concurrency))
        once_s = 2 * config.timeout_s + config.host_interval_s * config.max_per_host
        return BATCH_GRACE_S + turns * once_s * (config.retries + 1)

    def _start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        command = [sys.executable, "-m", "jobs.engines.img2dataset_worker", str(Path(self._files.name, "config"))]
        with open(self._log, "wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        self._process = process
        if self._read_answer(process, START_TIMEOUT_S) != b"ready":
            self._kill()
            reason = (self._log.read_text(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
            raise UserError(f'img2dataset does not start ({reason}): mend its installation or use engine = "native".')
        return process

    def _read_answer(self, process: subprocess.Popen[bytes], max_s: float) -> bytes:
        """The next line that the process prints; empty when it died or took longer than `max_s` seconds."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline().strip() if selector.select(max_s) else b""

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
