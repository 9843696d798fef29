"""Rows of downloads: the row of a picture that came, and the row of a uid whose picture did not."""

from __future__ import annotations

from curation.images.process import Stored
from curation.schema import DownloadRow, Status

MAX_DETAIL = 200
"""Characters of a detail that are kept."""


def ok_row(uid: str, stored: Stored, sha256: str, num_bytes: int) -> DownloadRow:
    """The row of a picture that came: `num_bytes` bytes with `sha256` were fetched, `stored` goes into the shard."""
    return {
        "uid": uid,
        "status": Status.OK.value,
        "detail": None,
        "sha256": sha256,
        "pixel_sha256": stored.pixel_sha256,
        "phash": stored.phash,
        "format": stored.format,
        "num_bytes": num_bytes,
        "width": stored.width,
        "height": stored.height,
        "stored_width": stored.stored_width,
        "stored_height": stored.stored_height,
        "sharpness": stored.sharpness,
        "entropy": stored.entropy,
        "shard": None,
        "offset": None,
        "size": len(stored.data),
        "stored_sha256": stored.stored_sha256 or sha256,
        "fetch_round": None,
    }


def failed_row(uid: str, status: Status, detail: str | None) -> DownloadRow:
    """The row of a uid whose picture did not come; only the first MAX_DETAIL characters of `detail` are kept."""
    return {
        "uid": uid,
        "status": status.value,
        "detail": (detail or "")[:MAX_DETAIL] or None,
        "sha256": None,
        "pixel_sha256": None,
        "phash": None,
        "format": None,
        "num_bytes": None,
        "width": None,
        "height": None,
        "stored_width": None,
        "stored_height": None,
        "sharpness": None,
        "entropy": None,
        "shard": None,
        "offset": None,
        "size": None,
        "stored_sha256": None,
        "fetch_round": None,
    }
