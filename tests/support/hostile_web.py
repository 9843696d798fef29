"""The web of all hostile behaviours: its server, rows that ask for each, settings, and names that lead nowhere."""

from __future__ import annotations

import hashlib
import logging
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.recipe.config import DownloadConfig
from curation.schema import SAMPLES, uid
from curation.storage import Root
from tests.support.hostile_behaviours import BEHAVIOURS, FAKE_NAMES, MAX_BYTES, OPTED_OUT, Behaviour
from tests.support.hostile_pictures import jpeg
from tests.support.hostile_server import DOMAIN, HostileServer
from tests.support.picture_unit import answer_picture

BEHAVES = list(BEHAVIOURS.values())
SYSTEM_GETADDRINFO = socket.getaddrinfo


def serving(num_plain_hosts: int = 0) -> HostileServer:
    """A server of all behaviours, and of hosts plain0, plain1 … where every fifth picture is gone."""
    served = {b.label: b.serve for b in BEHAVES if b.serve is not None}
    served |= {f"plain{number}": answer_picture for number in range(num_plain_hosts)}
    return HostileServer(served, {b.label: b.robots for b in BEHAVES if b.robots is not None})


def fake_getaddrinfo(host: str, *args: object, **options: object) -> list[tuple[Any, ...]]:
    """The system's resolver, but for the names that tests made up; none of them leaves the machine."""
    if host in FAKE_NAMES:
        found = FAKE_NAMES[host]
        if found is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in found]
    if set(host) - set("0123456789abcdefx.:"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return SYSTEM_GETADDRINFO(host, *args, **options)  # type: ignore[arg-type]  # passed on as they came


def config_of(connect_to: Mapping[str, str], folder: Path, timeout_s: float) -> DownloadConfig:
    """Settings that reach the server of `connect_to`, with opt-out lists in `folder`."""
    opt_out = folder / "opt_out.txt"
    sha256 = hashlib.sha256(jpeg(seed=7)).hexdigest()
    opt_out.write_text(f"# what must not be fetched\n{OPTED_OUT}\nopted-out-host.{DOMAIN}\n{sha256}\n")
    return DownloadConfig(
        image_size=32,
        max_bytes=MAX_BYTES,
        timeout_s=timeout_s,
        connect_timeout_s=timeout_s,
        first_byte_timeout_s=timeout_s / 2,
        connect_to=dict(connect_to),
        allow_addresses=("127.0.0.0/8",),
        opt_out=(str(opt_out),),
        max_concurrency=256,
    )


def fill(root: Root, unit: str, behaves: Sequence[Behaviour]) -> dict[str, str]:
    """Write the samples of `unit`; name of each uid."""
    rows = []
    for b in behaves:
        row = dict.fromkeys(SAMPLES.names) | {"uid": uid(b.url, b.name), "url": b.url, "caption": b.name}
        rows.append(row | {"source": "test", "domain": DOMAIN, "claimed_sha256": b.claimed_sha256})
    rows.sort(key=lambda row: str(row["uid"]))
    root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema=SAMPLES))
    return {str(row["uid"]): str(row["caption"]) for row in rows}


def main() -> None:
    """Serve until standard input ends; says the port first. So the memory of the server is not that of its client."""
    # Clients of this web go away in the midst of answers; asyncio warns of each of them.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with serving(int(sys.argv[1])) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
