"""The pictures that benchmarks/download.py serves: made from photographs, the same on every machine that has them.

Mosaics keep the texture of the photographs that they are made of, so decoders and encoders work as hard as on real
ones.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

SMALL, PHOTOS, CLIPART = "small", "photos", "clipart"
NUM_SMALL, NUM_PHOTOS = 8_000, 2_000
TILE = 160
CLIPART_PACKAGE = "openclipart-png"


def make(name: str, folder: Path, photographs: Path) -> list[str]:
    """Make set `name` below `folder`, unless it stands there; the files' paths relative to `folder/name`, sorted.

    Raises CalledProcessError when Debian's archive does not give its package.
    """
    target = folder / name
    if not (target / ".whole").exists():
        target.mkdir(parents=True, exist_ok=True)
        if name == CLIPART:
            _unpack(CLIPART_PACKAGE, target)
        else:
            _mosaics(name, target, sorted(photographs.glob("*.jpg")))
        (target / ".whole").touch()
    return sorted(str(p.relative_to(target)) for p in _pictures(target))


def _pictures(folder: Path) -> Iterator[Path]:
    return (p for p in folder.rglob("*") if p.suffix in (".jpg", ".png") and p.is_file())


def _unpack(package: str, target: Path) -> None:
    subprocess.run(["apt-get", "download", package], cwd=target, check=True, capture_output=True)
    archive = next(target.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive.name, "."], cwd=target, check=True)
    archive.unlink()


def _mosaics(name: str, target: Path, sources: list[Path]) -> None:
    one: Callable[[int], None] = partial(_mosaic, name, target, sources)
    with ProcessPoolExecutor() as pool:
        list(pool.map(one, range(NUM_SMALL if name == SMALL else NUM_PHOTOS), chunksize=50))


def _mosaic(name: str, target: Path, sources: list[Path], number: int) -> None:
    """Small ones are 256 to 320 a side; photographs have 1 to 4 megapixels and ratios up to 3:2, a third upright."""
    dice = random.Random(f"{name} {number}")
    if name == SMALL:
        width, height, zoom, quality = dice.randint(256, 320), dice.randint(256, 320), 1.0, 85
    else:
        area, ratio = dice.uniform(1e6, 4e6), dice.uniform(1.0, 1.5)
        width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        zoom, quality = dice.uniform(1.5, 2.5), 88
        if dice.random() < 1 / 3:
            width, height = height, width
    side = TILE * zoom
    across, down = -(-width // int(side)), -(-height // int(side))
    tiles = [[_tile(dice.choice(sources), int(side)) for _ in range(across)] for _ in range(down)]
    image = np.vstack([np.hstack(row) for row in tiles])[:height, :width]
    cv2.imwrite(str(target / f"{number:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _tile(path: Path, side: int) -> np.ndarray:
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} is no picture that OpenCV reads.")
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
