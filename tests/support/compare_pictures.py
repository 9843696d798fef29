"""Comparing stored pictures with what they should show."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Decibels between two pictures of the same size."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))
