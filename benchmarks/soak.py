"""Soak: a download at full speed from a web that means harm, for hours: nothing grows.

    python -m benchmarks.soak [--minutes 120]

One process downloads unit after unit: every behaviour of tests/support/hostile_behaviours.py, and two thousand pictures
on forty hosts. After each unit, when all is at rest, it notes memory, open files, threads, child processes and
temporary files of itself and of its decoders. Exits with 1 when one of them grew, in the last quarter of the time
against the second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import table
from curation.download.unit import download_unit
from curation.fetch import politeness
from curation.progress import bar
from curation.storage import Root
from curation.terminal import write_error, write_out
from tests.support.hostile_behaviours import TIMEOUT_S, Behaviour
from tests.support.hostile_server import DOMAIN
from tests.support.hostile_web import BEHAVES, config_of, fake_getaddrinfo, fill
from tests.support.memory import memory_bytes

NUM_HOSTS, NUM_PICTURES = 40, 2_000
NUM_SHOWN = 12
"""Rows of the table, each the medians of its part of the time."""
ALLOWED = {"memory_mb": 32.0, "decoders_mb": 32.0, "open_files": 4.0, "threads": 2.0, "children": 0.0, "temporary": 0.0}
"""What may be more at the end: allocators and pools do not settle at the first unit."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the process holds at rest after a unit."""

    minutes: float
    rows: int
    """Of the unit."""
    rows_per_s: float
    memory_mb: float
    decoders_mb: float
    open_files: float
    threads: float
    children: float
    temporary: float
    """Files in the folders for temporary ones."""


def main() -> None:
    """Run for the time that was asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0, metavar="M", help="how long (default: 120)")
    minutes = parser.parse_args().minutes
    socket.getaddrinfo = fake_getaddrinfo  # type: ignore[assignment]  # names of the test web only
    politeness.MAX_WAIT_S, politeness.BACKOFF_S = 0.3, 0.05
    with tempfile.TemporaryDirectory() as folder, serve_web() as connect_to:
        tempfile.tempdir = str(Path(folder, "tmp"))
        Path(tempfile.tempdir).mkdir()
        samples = list(download_often(Path(folder), connect_to, minutes * 60))
        tempfile.tempdir = None
    growth = find_growth(samples)
    notes = [
        f"{minutes:g} minutes, {len(samples):,} units of {samples[0].rows:,} rows, each {len(BEHAVES)} behaviours and "
        f"{NUM_PICTURES:,} pictures on {NUM_HOSTS} hosts; medians of each part of the time.",
        f"Grew: {'; '.join(growth) or 'nothing'}.",
    ]
    write_out(table.write("soak", summarise(samples), notes, ("aiohttp", "opencv-python-headless", "pyarrow")))
    sys.exit(1 if growth else 0)


@contextlib.contextmanager
def serve_web() -> Iterator[dict[str, str]]:
    """The web in a process of its own; where its names lead."""
    command = [sys.executable, "-m", "tests.support.hostile_web", str(NUM_HOSTS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        yield {f"*.{DOMAIN}": f"127.0.0.1:{int(server.stdout.readline())}"}
        server.stdin.close()


def download_often(folder: Path, connect_to: dict[str, str], seconds: float) -> Iterator[Sample]:
    """Download unit after unit for `seconds`, and at least four."""
    root, config = Root(folder / "root"), config_of(connect_to, folder, TIMEOUT_S)
    rows = [*BEHAVES, *map(plain_picture, range(NUM_PICTURES))]
    began, number, done_s = time.monotonic(), 0, 0
    with bar(round(seconds), "soak", "s") as progress:
        while number < 4 or time.monotonic() - began < seconds:
            unit, started = f"{number:08x}-000000", time.monotonic()
            names = fill(root, unit, rows)
            download_unit(root, unit, config)
            took = time.monotonic() - started
            ended = len(root.read_parquet(f"downloads/{unit}.parquet", ["uid"]))
            if ended != len(names):
                write_error(f"Unit {number} has {ended} rows and not {len(names)}.\n")
                sys.exit(1)
            for place in ("samples", "downloads", "raw", "logs"):
                root.remove(place)
            yield look(root, (time.monotonic() - began) / 60, ended, took)
            number += 1
            progress.update(round(time.monotonic() - began) - done_s)
            done_s = round(time.monotonic() - began)


def plain_picture(number: int) -> Behaviour:
    """A row of which nothing bad comes; its host answers that every fifth picture is gone."""
    url = f"http://plain{number % NUM_HOSTS}.{DOMAIN}/{number % 200}.jpg?{number}"
    return Behaviour(f"plain {number}", BEHAVES[0].status, url)


def look(root: Root, minutes: float, rows: int, took: float) -> Sample:
    """What this process and its children hold now."""
    children = [int(pid) for task in Path("/proc/self/task").iterdir() for pid in read_words(task / "children")]
    mine = [pid for pid in children if "decoding_process" in Path(f"/proc/{pid}/cmdline").read_text()]
    status = Path("/proc/self/status").read_text()
    temporary = [path for place in (root.scratch_path, Path(tempfile.gettempdir())) for path in place.rglob("*")]
    return Sample(
        minutes=minutes,
        rows=rows,
        rows_per_s=rows / took,
        memory_mb=memory_bytes("VmRSS") / 1e6,
        decoders_mb=sum(memory_bytes("VmRSS", pid) for pid in mine) / 1e6,
        open_files=len(os.listdir("/proc/self/fd")),
        threads=int(next(line.split()[1] for line in status.splitlines() if line.startswith("Threads:"))),
        children=len(children),
        temporary=len(temporary),
    )


def read_words(file: Path) -> list[str]:
    """The words of `file`; none where it has gone, as that of a thread that has ended."""
    with contextlib.suppress(OSError):
        return file.read_text().split()
    return []


def find_growth(samples: Sequence[Sample]) -> list[str]:
    """What the last quarter of `samples` has more of than the second one, beyond what is allowed."""
    quarter = max(1, len(samples) // 4)
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]
    found = []
    for name, allowed in ALLOWED.items():
        first, last = (median(getattr(sample, name) for sample in part) for part in (before, after))
        if last > first + allowed:
            found.append(f"{name} from {first:,.0f} to {last:,.0f}")
    return found


def summarise(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Medians of at most NUM_SHOWN parts of `samples`, in their order."""
    size = -(-len(samples) // NUM_SHOWN)
    parts = [[asdict(sample) for sample in samples[start : start + size]] for start in range(0, len(samples), size)]
    return [{name: round(median(sample[name] for sample in part), 1) for name in part[0]} for part in parts]


if __name__ == "__main__":
    main()
