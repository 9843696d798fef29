"""`download.engine = "img2dataset"`: its own Downloader, Resizer and writer inside our partition function.

The rows go to img2dataset in batches, through jobs/engines/img2dataset_guard.py; its shard and parquet file are read
as an adopted folder is, every picture is looked at again, and every row ends in our tables. Rows that it loses are
found by counting; a row that kills it is found by halving the batch.
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

from curation.adopt.folder import Shard, members, picture_of, read
from curation.adopt.messages import status_of
from curation.adopt.pictures import AS_IT_IS, SUCCESS, described
from curation.download.unit import Job, Row, failed
from curation.errors import UserError
from curation.images.decoder import Decoder
from curation.images.probe import PictureError
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from curation.shards import read_member
from curation.storage import Root
from jobs.engines.img2dataset_refusals import ended
from jobs.engines.img2dataset_worker import COLUMNS

ROWS_PER_BATCH = 1_000
START_TIMEOUT_S = 120.0
BATCH_GRACE_S = 120.0


def fetch_rows(job: Job) -> None:
    """End every waiting row by img2dataset. Raises UserError when it does not start."""
    waiting = []
    for sample in job.waiting():
        refused = job.refusal(sample)
        if refused is not None:
            job.end(sample, failed(sample["uid"], Status.OPTED_OUT, refused))
        else:
            waiting.append(sample)
    if not waiting:
        return
    with Worker(job) as worker:
        for start in range(0, len(waiting), ROWS_PER_BATCH):
            run_batch(job, worker, waiting[start : start + ROWS_PER_BATCH])


def run_batch(job: Job, worker: Worker, samples: list[Row]) -> None:
    """End `samples`: as img2dataset says, or as lost where it says nothing of a row, or died of it."""
    with tempfile.TemporaryDirectory(prefix="img2dataset-", dir=worker.scratch) as folder:
        whole = worker.run(Path(folder), samples)
        left = asyncio.run(end_found(job, Path(folder), {sample["uid"]: sample for sample in samples}))
    if whole or len(samples) == 1:
        said = f"img2dataset was given {len(samples)} rows and names {len(samples) - len(left)}: not this one"
        for sample in left:
            job.end(sample, failed(sample["uid"], Status.LOST_BY_ENGINE, said if whole else "img2dataset died of it"))
        return
    middle = -(-len(left) // 2)
    for half in (left[:middle], left[middle:]):
        if half:
            run_batch(job, worker, half)


async def end_found(job: Job, folder: Path, samples: dict[str, Row]) -> list[Row]:
    """End the rows of which the shard in `folder` tells; those that it does not name."""
    if not Path(folder, "00000.tar").exists():
        return list(samples.values())
    root, shard = Root(folder), Shard(source="", path=str(folder / "00000.tar"), num_bytes=())
    files = members(root, shard)
    facts = json.loads(root.read_bytes("fetched.json")) if root.exists("fetched.json") else {}
    decoder = Decoder(AS_IT_IS)
    try:
        for row in read(root, shard).table.to_pylist():
            if row["uid"] not in samples:
                continue
            place = picture_of(files.get(row["key"], {}))
            if row["status"] == SUCCESS and place is None:
                continue
            data = read_member(root, shard.path, place.offset, place.size) if place else b""
            job.end(samples.pop(row["uid"]), *await _end(row, data, facts, decoder))
    finally:
        await decoder.close()
    return list(samples.values())


async def _end(row: Row, data: bytes, facts: dict[str, Any], decoder: Decoder) -> tuple[Row, bytes]:
    """The row of downloads and the bytes to be stored, for one row that img2dataset names."""
    if row["status"] != SUCCESS:
        said = ended(row["error_message"])
        status, detail = said or (status_of(row["status"], row["error_message"]), row["error_message"] or "")
        return failed(row["uid"], status, detail), b""
    try:
        stored = await decoder.decode(data)
    except PictureError as error:
        return failed(row["uid"], error.status, error.detail), b""
    num_bytes, name = facts.get(row["sha256"], (None, None))
    fetched = {"num_bytes": num_bytes, "format": name} if num_bytes else {}
    return described(row, data, stored) | fetched | {"size": len(data)}, data


class Worker:
    """The process that img2dataset runs in, started again after a death. Use as a context manager."""

    def __init__(self, job: Job) -> None:
        self._config: DownloadConfig = job.config
        self.scratch = job.spool.path.parent
        self._payload = pickle.dumps((job.config, job.opt_out))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        self._files = tempfile.TemporaryDirectory(prefix="img2dataset-", dir=self.scratch)
        self._log = Path(self._files.name, "stderr")
        Path(self._files.name, "config").write_bytes(self._payload)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._files.cleanup()

    def run(self, folder: Path, samples: list[Row]) -> bool:
        """Let img2dataset write a shard of `samples` into `folder`; False when it did not live through it."""
        rows = {column: [sample[column] for sample in samples] for column in COLUMNS}
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
            self._end()
            return False
        answer = self._answer(process, self._longest_s(len(samples)))
        if answer not in (b"done", b"failed"):
            self._end()
        return answer == b"done"

    def _longest_s(self, num_rows: int) -> float:
        """No batch may take longer: every fetch has a deadline, and one host might own all rows."""
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
        if self._answer(process, START_TIMEOUT_S) != b"ready":
            self._end()
            reason = (self._log.read_text(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
            raise UserError(f'img2dataset does not start ({reason}): mend its installation or use engine = "native".')
        return process

    def _answer(self, process: subprocess.Popen[bytes], longest_s: float) -> bytes:
        """The next line of the process; empty when it died or took longer than `longest_s`."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline().strip() if selector.select(longest_s) else b""

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
