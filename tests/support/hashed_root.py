"""A root of rows whose sums, hashes and other columns are given; there are no pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.recipe.config import DedupeConfig, Recipe
from curation.schema import DOWNLOADS, SAMPLES, uid
from curation.storage import Root

Row = dict[str, Any]
HASH = 0x0F0F0F0F0F0F0F0F


def sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def fill(root: Root, rows: Sequence[Row], num_units: int = 3) -> None:
    """Units of `rows`: columns of downloads and samples, without a status ok. Rows get urls of their own."""
    named = []
    for number, row in enumerate(rows):
        url = f"http://host.test/{number}"
        named.append({"status": "ok", "source": "laion", "caption": f"c{number}"} | row | {"url": url})
        named[-1]["uid"] = uid(url, named[-1]["caption"])
    for number in range(num_units):
        unit = f"0123abcd-{number:06d}"
        own = sorted(named[number::num_units], key=lambda row: row["uid"])
        for table, schema in (("samples", SAMPLES), ("downloads", DOWNLOADS)):
            filled = [{name: row.get(name) for name in schema.names} for row in own]
            root.publish_parquet(f"{table}/{unit}.parquet", pa.Table.from_pylist(filled, schema))
    root.publish_json("plans/0123abcd.json", {"number": 0, "inputs": []})


def recipe(**options: Any) -> Recipe:
    return Recipe(dedupe=DedupeConfig(**{"tiers": ("exact", "perceptual"), **options}))


def near(value: int, *bits: int) -> str:
    """A hash some pairs of bits from `value`, with as many bits set."""
    for bit in bits:
        value ^= 0b10001 << bit
    return f"{value:016x}"


def draw_hash(seed: int) -> str:
    """A random hash with as many bits set as that of a picture."""
    bits = np.random.default_rng(seed).permutation(np.arange(64) % 2)
    return f"{int(''.join(map(str, bits)), 2):016x}"
