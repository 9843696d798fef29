"""Text rendered in the picture, and how much of the caption it spells (optional: PP-OCRv4 by rapidocr-onnxruntime).

Pairs that match only because the caption is written in the picture teach a model to read, not to see; about 40 % of
LAION's pictures have caption-overlapping text (T-MARS, Maini et al. 2023, section 3). T-MARS masks the text and scores
again; these two columns say where that matters. About 0.3 s a picture and core. Install it beside the headless
OpenCV by `pip install --no-deps rapidocr-onnxruntime onnxruntime pyclipper shapely`.
"""

from __future__ import annotations

import functools
import io
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from curation.errors import UserError
from filters.base import Filter

_WORD = re.compile(r"\w+")
MAX_THREADS = 256
Scores = tuple[float | None, float | None]
Line = tuple[np.ndarray, str]
"""Corners `[4, 2]` of a line of text in pixels, and what it says."""


_of_thread = threading.local()


def _reader() -> Any:
    """The OCR of this thread: a reader keeps what it works on, so that no two threads can share one."""
    if not hasattr(_of_thread, "reader"):
        _of_thread.reader = _load_reader()
    return _of_thread.reader


def _load_reader() -> Any:
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise UserError(
            "The filter text_overlap needs an OCR: "
            "pip install --no-deps rapidocr-onnxruntime onnxruntime pyclipper shapely."
        ) from error
    cv2.setNumThreads(1)  # its own threads would only wait for the cores of other tasks
    return RapidOCR(intra_op_num_threads=1)  # Spark runs one task a core, and a task its own threads


@functools.cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Threads that keep their readers from batch to batch."""
    return ThreadPoolExecutor(num_threads, "ocr")


def read_lines(pixels: np.ndarray, min_confidence: float) -> list[Line]:
    """Lines of text in `pixels` uint8 `[h, w, 3]` RGB that the OCR is at least so sure of."""
    lines, _ = _reader()(np.ascontiguousarray(pixels[:, :, ::-1]))
    return [(np.asarray(corners), text) for corners, text, sure in lines or () if float(sure) >= min_confidence]


def area(corners: np.ndarray) -> float:
    """Area of a polygon `[n, 2]` in square pixels (shoelace formula)."""
    x, y = corners[:, 0], corners[:, 1]
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def overlap(caption: str | None, text: str) -> float | None:
    """Share of the caption's distinct words that occur in `text`; None for a caption without words."""
    words = set(_WORD.findall((caption or "").lower()))
    return len(words & set(_WORD.findall(text.lower()))) / len(words) if words else None


@dataclass(frozen=True, kw_only=True)
class TextOverlap(Filter):
    """`text_fraction`: share of the area in lines of text; `text_overlap`: share of the caption's words written there.

    Both null for pictures that cannot be decoded, `text_overlap` also for captions without words.
    """

    min_confidence: float = 0.5
    """Lines that the OCR is less sure of do not count."""
    num_threads: int = 1
    """Pictures that a task reads at once, each on a core of its own; 1 where there are as many units as cores."""

    reads = ("image", "caption")
    writes = pa.schema([("text_fraction", pa.float32()), ("text_overlap", pa.float32())])

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence must lie in [0, 1], not {self.min_confidence}")
        if not 1 <= self.num_threads <= MAX_THREADS:
            raise ValueError(f"num_threads must lie in 1..{MAX_THREADS}, not {self.num_threads}")

    def check_ready(self) -> None:
        _reader()

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        scores = list(self._read_all(batch["image"].to_pylist(), batch["caption"].to_pylist()))
        return self.result([fraction for fraction, _ in scores], [share for _, share in scores])

    def config(self) -> dict[str, Any]:
        """See `filters.base.Filter.config`; the number of threads decides no score."""
        config = super().config()
        del config["options"]["num_threads"]
        return config

    def _read_all(self, images: list[bytes | None], captions: list[str | None]) -> Iterator[Scores]:
        if self.num_threads == 1:
            return map(self._row, images, captions)
        return _pool(self.num_threads).map(self._row, images, captions)

    def _row(self, image: bytes | None, caption: str | None) -> Scores:
        try:
            with Image.open(io.BytesIO(image or b"")) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # SyntaxError: Pillow's broken PNGs
            return None, None
        lines = read_lines(pixels, self.min_confidence)
        covered = sum(area(corners) for corners, _ in lines) / (pixels.shape[0] * pixels.shape[1])
        return min(covered, 1.0), overlap(caption, " ".join(text for _, text in lines))


FILTER = TextOverlap
