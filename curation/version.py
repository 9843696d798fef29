"""The version of the toolkit, which is written beside every table."""

from __future__ import annotations

__version__ = "0.1.0"
