"""Photographs and their altered copies as a run would hold them: stored, hashed and embedded, a block at a time.

Blocks stand in the benchmark's folder, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.altered import ALTERATIONS, alter
from curation.images.process import process
from curation.progress import bar
from curation.recipe.config import DownloadConfig
from jobs.embed import to_half
from jobs.embedders import load_embedder

NUM_TEST, NUM_CALIBRATION = 1_500, 700
"""Photographs that get copies: those that the table is about, and those that τ is chosen on. The rest get none."""
BLOCK = 250
MODEL = "efficientnet-lite0"


@dataclass(frozen=True)
class Entry:
    """One picture: the photograph's file name, what was done to it ("original" for nothing), and its set."""

    photograph: str
    alteration: str
    group: str


def entries(photographs: Path) -> list[Entry]:
    """All pictures of the benchmark, in the order of a hash of the photographs' names."""
    names = sorted((p.name for p in photographs.glob("*.jpg")), key=lambda n: hashlib.md5(n.encode()).hexdigest())
    found = []
    for number, name in enumerate(names):
        with_copies = number < NUM_TEST + NUM_CALIBRATION
        group = "test" if number < NUM_TEST else "calibration" if with_copies else "background"
        kinds = ["original", *(ALTERATIONS if with_copies else [])]
        found += [Entry(name, kind, group) for kind in kinds]
    return found


@dataclass(frozen=True)
class Pictures:
    """What the tiers see of each entry, row for row; `vectors` float16 `[n, d]`."""

    entries: list[Entry]
    vectors: np.ndarray
    phash: np.ndarray
    entropy: np.ndarray
    sha256: np.ndarray
    pixel_sha256: np.ndarray


def prepare(photographs: Path, folder: Path, seconds: float) -> bool:
    """Make the blocks that are not there yet until `seconds` are over; whether all stand."""
    wanted, started = entries(photographs), time.monotonic()
    (folder / "files").mkdir(parents=True, exist_ok=True)
    starts = [s for s in range(0, len(wanted), BLOCK) if not _path(folder, s).exists()]
    with bar(len(starts), "store, hash and embed", "block") as progress:
        for start in starts:
            if time.monotonic() - started > seconds:
                return False
            _block(photographs, folder, wanted[start : start + BLOCK], start)
            progress.update()
    return True


def load(photographs: Path, folder: Path) -> Pictures:
    """Everything that `prepare` made. Raises FileNotFoundError while blocks are missing."""
    wanted = entries(photographs)
    blocks = [np.load(_path(folder, start)) for start in range(0, len(wanted), BLOCK)]
    names = ("vectors", "phash", "entropy", "sha256", "pixel_sha256")
    return Pictures(wanted, *(np.concatenate([block[name] for block in blocks]) for name in names))


def load_blocks(photographs: Path, folder: Path) -> tuple[Pictures, list[Path]]:
    """As `load`, of the blocks that stand by now; and the file of each picture as it was fetched."""
    wanted = entries(photographs)
    starts = [start for start in range(0, len(wanted), BLOCK) if _path(folder, start).exists()]
    blocks = [np.load(_path(folder, start)) for start in starts]
    names = ("vectors", "phash", "entropy", "sha256", "pixel_sha256")
    known = [entry for start in starts for entry in wanted[start : start + BLOCK]]
    numbers = [number for start in starts for number in range(start, min(start + BLOCK, len(wanted)))]
    files = [folder / "files" / f"{number:06d}.jpg" for number in numbers]
    return Pictures(known, *(np.concatenate([block[name] for block in blocks]) for name in names)), files


def _path(folder: Path, start: int) -> Path:
    return folder / f"block-{start:06d}.npz"


def _block(photographs: Path, folder: Path, wanted: list[Entry], start: int) -> None:
    stored, sha256 = [], []
    for number, entry in enumerate(wanted, start):
        data = (photographs / entry.photograph).read_bytes()
        if entry.alteration != "original":
            rng = np.random.default_rng(zlib.crc32(f"{entry.photograph} {entry.alteration}".encode()))
            data = alter(data, entry.alteration, rng)
        (folder / "files" / f"{number:06d}.jpg").write_bytes(data)
        sha256.append(hashlib.sha256(data).hexdigest())
        stored.append(process(data, DownloadConfig()))
    vectors = _embed([picture.data for picture in stored])
    np.savez(
        _path(folder, start),
        vectors=to_half(vectors),
        phash=np.array([int(picture.phash or "0", 16) for picture in stored], np.uint64),
        entropy=np.array([picture.entropy for picture in stored], np.float32),
        sha256=np.array(sha256),
        pixel_sha256=np.array([picture.pixel_sha256 for picture in stored]),
    )


def _embed(pictures: list[bytes]) -> np.ndarray:
    parts = [pictures[start : start + 25] for start in range(0, len(pictures), 25)]
    return np.concatenate([load_embedder(MODEL).embed([""] * len(part), part) for part in parts])
