"""What a value of a setting may be: settings ask when they are made, and what reads them makes a UserError of it."""

from __future__ import annotations


def require(ok: bool, message: str) -> None:
    """Raise ValueError with the message unless it is so."""
    if not ok:
        raise ValueError(message)


def require_share(name: str, value: float) -> None:
    """Raise ValueError for a value outside [0, 1)."""
    require(0 <= value < 1, f"{name} is a share in [0, 1), not {value}")
