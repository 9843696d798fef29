"""Identity, statuses and the columns of every table (docs/architecture.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from itertools import count
from typing import TypedDict

import pyarrow as pa

ROOT_FORMAT = 2
"""Version of the layout of ROOT; a root written with another one is refused. 2: downloads have `fetch_round`."""
SEALED_FORMAT = 3
"""The same layout with the sums of all files in `sums/`, named by root.json."""
PACKED_FORMAT = 4
"""A sealed root in which `curate compact` has joined files of units: earlier versions would take them for missing."""


class Status(StrEnum):
    """How the download of one row ended. A closed set: every ingested uid carries exactly one."""

    OK = "ok"
    INVALID_URL = "invalid_url"
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    OPTED_OUT = "opted_out"
    ROBOTS = "robots"
    BLOCKED_ADDRESS = "blocked_address"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    BAD_RESPONSE = "bad_response"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    HTTP_3XX = "http_3xx"
    HTTP_4XX = "http_4xx"
    HTTP_404 = "http_404"
    HTTP_410 = "http_410"
    HTTP_429 = "http_429"
    HTTP_5XX = "http_5xx"
    TOO_LARGE = "too_large"
    EMPTY = "empty"
    HASH_MISMATCH = "hash_mismatch"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_FRAMES = "too_many_frames"
    TOO_SMALL = "too_small"
    DECODER_DIED = "decoder_died"
    LOST_BY_ENGINE = "lost_by_engine"
    INTERNAL_ERROR = "internal_error"


class RejectReason(StrEnum):
    """Why a row of metadata became no sample."""

    NO_URL = "no_url"
    WHERE = "where"
    REPEATED = "repeated"
    NOT_TEXT = "not_text"
    """Its URL or caption is no UTF-8."""
    MALFORMED = "malformed"
    """A line that is no row of its file: JSON that is no object, too few or too many fields, a quote left open."""
    NO_PICTURE = "no_picture"
    """A sample of an adopted tar, or a file of an adopted folder, without a picture."""
    LOST_BY_ENGINE = "lost_by_engine"
    """An adopted folder counts the row and holds neither its URL nor its picture."""
    FORGOTTEN = "forgotten"
    """Somebody asked for its removal. Its file, row and uid are null: nothing here leads back to it."""


def uid(url: str | None, caption: str | None) -> str:
    """Identity of an image-text pair: `md5(url + "\\n" + caption)` as 32 hex digits, NULL as empty.

    Spark SQL and DuckDB: `md5(concat(coalesce(url, ''), chr(10), coalesce(caption, '')))`.
    """
    return hashlib.md5(f"{url or ''}\n{caption or ''}".encode(), usedforsecurity=False).hexdigest()


UID_SQL = "md5(concat(coalesce(url, ''), chr(10), coalesce(caption, '')))"
"""`uid` in SQL, the same text for Spark and DuckDB, over columns named `url` and `caption`."""


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, dtype) for name, dtype in columns.items()])


_S, _I32, _I64, _F32 = pa.string(), pa.int32(), pa.int64(), pa.float32()

SAMPLES = _schema(
    uid=_S,
    url=_S,
    caption=_S,
    source=_S,
    source_id=_S,
    domain=_S,
    claimed_width=_I32,
    claimed_height=_I32,
    claimed_sha256=_S,
    claimed_phash=_S,
    claimed_language=_S,
    license=_S,
    nsfw=_S,
    clip_similarity=_F32,
    clip_similarity_l14=_F32,
    punsafe=_F32,
    pwatermark=_F32,
    aesthetic=_F32,
    num_faces=_I32,
)


_FURTHER_CAPTION = re.compile(r"caption_([2-9]|[1-9][0-9]+)")


def is_further_caption(name: str) -> bool:
    """Whether `name` is that of a caption after the first: `caption_2`, `caption_3` …"""
    return _FURTHER_CAPTION.fullmatch(name) is not None


def name_captions(number: int) -> list[str]:
    """Names of `number` columns of captions: `caption`, `caption_2`, `caption_3` …"""
    return ["caption", *(f"caption_{k}" for k in range(2, number + 1))]


def count_captions(names: Iterable[str]) -> int:
    """How many columns of captions are among the columns `names` of samples."""
    known = set(names)
    return next(k for k in count(1) if f"caption_{k + 1}" not in known)


def samples_schema(num_captions: int = 1) -> pa.Schema:
    """SAMPLES and, of a plan whose sources keep several captions, the further ones; they take no part in the uid."""
    further = [pa.field(name, _S) for name in name_captions(num_captions)[1:]]
    return pa.schema([*SAMPLES, *further])


REJECTS = _schema(source=_S, file=_S, row=_I64, uid=_S, reason=_S)

LISTINGS = _schema(file=_S, fingerprint=_S)
"""What an adopted folder of pictures held: the path of each file in it, and a fingerprint of its size."""

TOMBSTONES = _schema(kind=_S, sha256=_S, reason=_S, date=_S)
"""What was asked to be forgotten: the sha256 of the key of a uid, URL, host or picture, since when and why."""

DOWNLOADS = _schema(
    uid=_S,
    status=_S,
    detail=_S,
    sha256=_S,
    pixel_sha256=_S,
    phash=_S,
    format=_S,
    num_bytes=_I64,
    width=_I32,
    height=_I32,
    stored_width=_I32,
    stored_height=_I32,
    sharpness=_F32,
    entropy=_F32,
    shard=_S,
    offset=_I64,
    size=_I64,
    stored_sha256=_S,
    fetch_round=_I32,
)
"""`fetch_round` is the round in which the row ended: 0 the pass over the whole plan, null where nobody knows."""


class SampleRow(TypedDict):
    """The columns of samples that a download reads."""

    uid: str
    url: str
    caption: str | None
    source: str
    domain: str | None
    claimed_sha256: str | None


class DownloadRow(TypedDict):
    """One row of downloads, in the order of DOWNLOADS; all but uid, status and fetch_round may be None."""

    uid: str
    status: str
    detail: str | None
    sha256: str | None
    pixel_sha256: str | None
    phash: str | None
    format: str | None
    num_bytes: int | None
    width: int | None
    height: int | None
    stored_width: int | None
    stored_height: int | None
    sharpness: float | None
    entropy: float | None
    shard: str | None
    offset: int | None
    size: int | None
    stored_sha256: str | None
    fetch_round: int | None


EMBEDDINGS = _schema(uid=_S)

DUPLICATES = _schema(uid=_S, kept_uid=_S, tier=_S, similarity=_F32, component=_S)

SELECTION = _schema(uid=_S, kept=pa.bool_(), reason=_S)

TRAIN_INDEX = _schema(
    uid=_S,
    shard=_S,
    offset=_I64,
    size=_I64,
    sha256=_S,
    json_offset=_I64,
    json_size=_I64,
    txt_offset=_I64,
    txt_size=_I64,
)
"""Leading columns of train_index; every manifest column that selection saw follows."""
