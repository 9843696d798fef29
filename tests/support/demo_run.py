"""One whole `curate demo`, run by the command line that a user has, for every test that looks at its root."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from curation.storage import Root

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TRANSIENT = ("logs/", ".scratch/", "training/")
"""What two runs of the same input need not share."""
SUMS_OF_PLANS = ("root.json", "sums/plans-")


@dataclass(frozen=True)
class DemoRun:
    """The root in `folder`, and what the run printed."""

    folder: Path
    output: str

    @property
    def root(self) -> Root:
        return Root(self.folder)


def environment() -> dict[str, str]:
    return os.environ | {"PATH": os.pathsep.join((str(BIN), os.environ["PATH"])), "OMP_NUM_THREADS": "1"}


def curate(*arguments: object) -> list[str]:
    return [str(BIN / "curate"), *map(str, arguments)]


def run(folder: Path) -> DemoRun:
    """`curate demo` to its end. Raises AssertionError with its output when it fails."""
    command = curate("demo", "--root", folder)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), text=True, check=False, **streams)
    assert done.returncode == 0, done.stdout
    return DemoRun(folder, done.stdout)


def files(folder: Path) -> dict[str, Path]:
    """Every file that a run must give again, by its path inside the root."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if not name.startswith(TRANSIENT)}


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of `files`; plans name the metadata's folder, which is left out of them, as are the sums of plans."""
    place = str(folder.resolve()).encode()
    found = {name: path for name, path in files(folder).items() if not name.startswith(SUMS_OF_PLANS)}
    return {name: path.read_bytes().replace(place, b"ROOT") for name, path in found.items()}
