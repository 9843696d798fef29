"""Our downloader and img2dataset: same pictures, same server, same cores; and the machine's floor.

    python -m benchmarks.download --photographs FOLDER_OF_JPEGS               # everything, then the table
    python -m benchmarks.download --only small/224/engine                     # one measurement
    python -m benchmarks.download --table                                     # the table of what was measured

Each measurement stands in FOLDER/parts once it is done, so a run may be cut into pieces. Needs nginx and, for set
clipart, apt-get (Debian); the peer is `img2dataset` of the `spark` extra.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import download_sets as sets
from benchmarks.download_server import Nginx
from benchmarks.process_tree import ProcessTree
from benchmarks.table import write
from curation.progress import bar

MODES = ("224", "224, not measured", "as they came", "as they came, not measured")
ENGINES = ("img2dataset", "engine", "spark", "floor")
HOSTILE = "hostile"
LABELS = {
    "img2dataset": "img2dataset",
    "engine": "ours, two processes",
    "spark": "ours, curate download",
    "floor": "floor: fetch, then decode + resize + encode",
}
THREADS = 64
"""Of each of img2dataset's processes."""
MAX_BYTES, MAX_S = 6_000_000_000, 240.0
Part = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "bench-download"))
    parser.add_argument("--photographs", type=Path, default=Path("curation/demo/pictures"))
    parser.add_argument("--only", action="append", help="SET/MODE/ENGINE, measured again if it stands")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    (arguments.folder / "parts").mkdir(parents=True, exist_ok=True)
    if unknown := set(arguments.only or ()) - set(every()):
        parser.error(f"--only {unknown.pop()}: it is one of {', '.join(every())}.")
    wanted = arguments.only or [] if arguments.table or arguments.only else missing(arguments.folder)
    with bar(len(wanted), "measure", "part") as progress:
        for name in wanted:
            measure(arguments.folder, arguments.photographs, name)
            progress.update()
    sys.stdout.write(write("download", rows(arguments.folder), notes(), ("img2dataset", "opencv-python-headless")))


def every() -> list[str]:
    """All measurements by name."""
    names = [f"{s}/{mode}/{e}" for s in (sets.SMALL, sets.PHOTOS, sets.CLIPART) for mode in MODES for e in ENGINES]
    once = [n for n in names if "not measured" not in n or n.endswith(("/engine", "/spark"))]
    return once + [f"{HOSTILE}/224/{engine}" for engine in ("img2dataset", "engine")]


def _file(folder: Path, name: str) -> Path:
    return folder / "parts" / f"{name.replace('/', '--')}.json"


def missing(folder: Path) -> list[str]:
    return [name for name in every() if not _file(folder, name).exists()]


def measure(folder: Path, photographs: Path, name: str) -> None:
    """One engine over one set; the result goes into its file."""
    set_name, mode, engine = name.split("/")
    with ExitStack() as stack:
        job: dict[str, Any] = {"mode": mode, "engine": engine, "folder": str(folder), "threads": THREADS}
        if set_name == HOSTILE:
            job |= _hostile(stack, engine)
        else:
            files = sets.make(set_name, folder / "sets", photographs)
            server = stack.enter_context(Nginx(folder, folder / "sets"))
            urls = [f"{server.url}/{set_name}/{file}" for file in files]
            job |= {"urls": urls, "connect_to": {}, "pictures": str(folder / "sets")}
        part = _run(job, folder / "job.json")
    part |= {"set": set_name, "mode": mode, "engine": engine, "pictures": len(job["urls"])}
    _file(folder, name).write_text(json.dumps(part, indent=1))


def _hostile(stack: ExitStack, engine: str) -> dict[str, Any]:
    """The behaviours of tests/support/hostile_behaviours.py, eight rows each that has a server."""
    from tests.support.hostile_behaviours import BEHAVIOURS
    from tests.support.hostile_server import HostileServer

    served = {b.label: b for b in BEHAVIOURS.values() if b.serve is not None and f"{b.label}." in b.url}
    robots = {label: b.robots for label, b in served.items() if b.robots is not None}
    server = HostileServer({label: b.serve for label, b in served.items() if b.serve}, robots)
    stack.enter_context(server)
    urls = [f"{b.url}?{n}" for b in served.values() for n in range(8)]
    if engine == "img2dataset":  # it knows names only from the system's resolver
        urls = [f"http://127.0.0.1:{server.port}/{label}/picture.jpg?{n}" for label in served for n in range(8)]
    config = {"timeout_s": 10.0, "max_bytes": 2_000_000, "retries": 0}
    return {"urls": urls, "connect_to": server.connect_to, "config": config}


def _run(job: dict[str, Any], file: Path) -> Part:
    file.write_text(json.dumps(job))
    command = [sys.executable, "-m", "benchmarks.download_engines", str(file)]
    settings = {"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | settings
    )
    tree = ProcessTree(process.pid, MAX_BYTES, MAX_S)
    part: Part = {"seconds": None, "statuses": {}}
    started = time.monotonic()
    for line in process.stdout or ():
        said: dict[str, Any] = json.loads(line) if line.startswith('{"event"') else {"event": None}
        if said["event"] == "start":
            tree.restart()
        elif said["event"] == "end":
            tree.sample()
            part |= {"cpu_s": tree.cpu_s(said["ended"] - said["seconds"], said["ended"])}
        part |= {key: value for key, value in said.items() if key != "event"}
    process.wait()
    tree.stop()
    part |= {"peak_mb": tree.peak_bytes / 1e6, "peak_task_mb": tree.peak_task_bytes / 1e6, "killed": tree.killed}
    if part["seconds"] is None:
        part["killed"] = (
            tree.killed or f"ended with status {process.returncode} after {time.monotonic() - started:.0f} s"
        )
    return part


def rows(folder: Path) -> list[dict[str, Any]]:
    """One row a measurement, with its share of the floor and its ratio to img2dataset in the same mode."""
    parts = {name: json.loads(_file(folder, name).read_text()) for name in every() if _file(folder, name).exists()}
    return [_row(parts, name, part) for name, part in parts.items()]


def _rate(part: Part | None) -> float | None:
    return part["pictures"] / part["seconds"] if part and part["seconds"] else None


def _row(parts: dict[str, Part], name: str, part: Part) -> dict[str, Any]:
    set_name, mode, engine = name.split("/")
    plain = mode.removesuffix(", not measured")
    rate, floor = _rate(part), _rate(parts.get(f"{set_name}/{plain}/floor"))
    peer = _rate(parts.get(f"{set_name}/{plain}/img2dataset"))
    ours = engine in ("engine", "spark")
    ended = ", ".join(
        f"{status} {count:,}" for status, count in sorted(part["statuses"].items(), key=lambda i: -i[1])[:3]
    )
    return {
        "set": set_name,
        "stored": mode,
        "engine": LABELS[engine],
        "pictures/s": rate,
        "× img2dataset": rate / peer if ours and rate and peer else None,
        "of the floor": f"{100 * rate / floor:.0f} %" if ours and rate and floor else None,
        "CPU ms a picture": 1e3 * part["cpu_s"] / part["pictures"] if part.get("cpu_s") else None,
        "peak MB of a task": round(part["peak_task_mb"]),
        "peak MB of all": round(part["peak_mb"]),
        "ended": part["killed"] or ended,
    }


def notes() -> list[str]:
    return [
        f"small: {sets.NUM_SMALL:,} JPEGs, 256 to 320 a side; photos: {sets.NUM_PHOTOS:,} JPEGs, 1 to 4 megapixels; "
        "both mosaics of photographs. clipart: Debian's openclipart-png as it comes, the largest 20990×29700. "
        "hostile: the behaviours of tests/support/hostile_behaviours.py, eight rows each.",
        "Same nginx, same loopback, same two cores, one after the other; nginx's own work is inside every figure but "
        "CPU ms a picture. Imports, the start of Spark and of img2dataset's processes are not inside.",
        "224: keep_ratio, shortest side 224, JPEG 95. As they came: resize no; img2dataset with skip_reencode, which "
        "decodes such pictures to know their size; we do to measure them. Not measured: `measure = false`, so without "
        "hash, pixel identity, sharpness and entropy, which img2dataset and the floor do without anyway.",
        "The floor runs fetching alone, then decoding, resizing and encoding alone, on both cores, and adds the times; "
        "as they came it is fetching alone.",
        f"A task is a Python worker with its decoder. A run is ended at {MAX_BYTES / 1e9:.0f} GB or {MAX_S:.0f} s, "
        "which the last column then says.",
    ]


if __name__ == "__main__":
    main()
