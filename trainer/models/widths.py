"""Widths that matrix units are fast at; without torch, so that a dry run can count what padding takes."""

FULL = 64
"""Width that fills the tiles of matrix units."""
LEAST = 8
"""Width below which bf16 rows are not aligned to 16 bytes, and products fall back to slow kernels."""
MOST_EXTRA = 0.02
"""Share of zeros that a full width may cost; above it, the least one is taken."""


def fast_width(width: int) -> int:
    """The width to compute with on a GPU in place of `width`."""
    full = _round_up(width, FULL)
    return full if full - width <= MOST_EXTRA * width else _round_up(width, LEAST)


def _round_up(width: int, multiple: int) -> int:
    return width + -width % multiple
