"""A unit of thirty rows on three hosts of a loopback server, every fifth picture gone, and its downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.recipe.config import DownloadConfig
from curation.schema import SAMPLES, uid
from curation.storage import Root
from tests.support.hostile_pictures import jpeg
from tests.support.hostile_server import DOMAIN, Exchange, HostileServer

UNIT = "00000000-000000"
Row = dict[str, Any]


async def answer_picture(e: Exchange) -> None:
    """`/N.jpg` is picture N; every fifth is gone."""
    number = int(e.path.strip("/").partition(".")[0])
    await e.answer(*((404, b"") if number % 5 == 4 else (200, jpeg(60 + number, 50, seed=number))))


def serve_pictures() -> HostileServer:
    """A server whose hosts a, b and c answer with `answer_picture`; it runs inside its `with`."""
    return HostileServer({"a": answer_picture, "b": answer_picture, "c": answer_picture}, {})


def download_config(server: HostileServer) -> DownloadConfig:
    """Settings that reach `server`, with a deadline that no busy machine misses."""
    return DownloadConfig(
        image_size=32, retries=0, connect_to=server.connect_to, allow_addresses=("127.0.0.0/8",), timeout_s=60
    )


def write_samples(folder: Path, number: int = 30) -> Root:
    """A root with `number` samples in UNIT, spread over the three hosts; every seventh has no caption."""
    root = Root(folder)
    rows = []
    for n in range(number):
        url = f"http://{'abc'[n % 3]}.{DOMAIN}/{n}.jpg"
        caption = f"caption {n}" if n % 7 else None
        rows.append(dict.fromkeys(SAMPLES.names) | {"uid": uid(url, caption), "url": url, "caption": caption})
        rows[-1] |= {"source": "laion", "domain": DOMAIN}
    rows.sort(key=lambda row: str(row["uid"]))
    root.publish_parquet(f"samples/{UNIT}.parquet", pa.Table.from_pylist(rows, schema=SAMPLES))
    return root


def read_downloads(root: Root) -> list[Row]:
    """The rows of UNIT's downloads."""
    rows: list[Row] = root.read_parquet(f"downloads/{UNIT}.parquet").to_pylist()
    return rows
