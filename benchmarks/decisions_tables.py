"""A root of generated rows for benchmarks.decisions: samples, downloads, five tables of scores and duplicates.

Every table has the columns and settings that a run writes, in units of 10,000 rows; memory does not grow with the rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from curation import schema
from curation.progress import bar
from curation.storage import Root
from curation.tables import duplicates_file

ROWS_PER_UNIT = 10_000
BATCH = "00000000"
VERSION = "0123456789ab"
SOURCES = np.array(["laion", "coyo", "commonpool"], object)
LANGUAGES = np.array(["en", "de", "fr", "zh"], object)
NUM_COMMON = 50_000
"""Captions that many rows share; a fifth of the rows has one of them."""
UNITS_PER_FILE = 100
"""Units whose duplicates stand in one file."""


def make_root(folder: Path, num_rows: int) -> Root:
    """The root with `num_rows` rows, kept when it stands already."""
    root = Root(folder)
    if root.exists("duplicates/current.json"):
        return root
    root.create()
    units = [f"{BATCH}-{number:06d}" for number in range(num_rows // ROWS_PER_UNIT)]
    removed, files = list[pa.Table](), list[str]()
    with bar(len(units), "make tables", "unit") as progress:
        for number, unit in enumerate(units):
            removed.append(_write_unit(root, unit, number))
            if len(removed) == UNITS_PER_FILE or unit == units[-1]:
                files.append(duplicates_file(VERSION, len(files)))
                root.publish_parquet(files[-1], pa.concat_tables(removed))
                removed = []
            progress.update()
    sizes = {unit[9:]: ROWS_PER_UNIT for unit in units}
    plan = {"batch": BATCH, "number": 0, "inputs": [], "totals": {"samples": sum(sizes.values())}, "units": sizes}
    root.publish_json(f"plans/{BATCH}.json", plan)
    root.publish_current("duplicates", VERSION, files, {}, {})
    return root


def _write_unit(root: Root, unit: str, number: int) -> pa.Table:
    """Write the tables of one unit; the rows of duplicates that remove some of its pictures."""
    rng, n = np.random.default_rng(number), ROWS_PER_UNIT
    digits = rng.bytes(16 * n).hex()
    uids = np.array(sorted(digits[i : i + 32] for i in range(0, len(digits), 32)), object)
    came = rng.random(n) < 0.7
    root.publish_parquet(f"samples/{unit}.parquet", _samples(uids, number, rng))
    root.publish_parquet(f"downloads/{unit}.parquet", _downloads(unit, uids, came, rng))
    stored = uids[came]
    for name, columns in _scores(len(stored), rng).items():
        root.publish_parquet(f"scores_{name}/{unit}.parquet", pa.table({"uid": stored, **columns}))
    copies = stored[rng.random(len(stored)) < 0.1]
    same = {"kept_uid": np.roll(copies, 1), "tier": np.full(len(copies), "perceptual", object)}
    similarity = pa.array(np.full(len(copies), 0.95, np.float32))
    return pa.table({"uid": copies, **same, "similarity": similarity, "component": copies}, schema.DUPLICATES)


def _floats(rng: np.random.Generator, low: float, high: float, n: int) -> pa.Array:
    return pa.array(rng.uniform(low, high, n).astype(np.float32))


def _samples(uids: np.ndarray, number: int, rng: np.random.Generator) -> pa.Table:
    n = len(uids)
    common = rng.integers(0, NUM_COMMON, n)
    is_common = rng.random(n) < 0.2
    captions = [
        f"one of many pictures with caption {k}" if c else f"a picture of {u[:6]} beside {u[6:12]}"
        for k, c, u in zip(common.tolist(), is_common.tolist(), uids.tolist(), strict=True)
    ]
    domains = np.array([f"host{number}-{k}.example" for k in range(97)], object)[np.arange(n) % 97]
    columns = {name: pa.nulls(n, schema.SAMPLES.field(name).type) for name in schema.SAMPLES.names}
    columns |= {
        "uid": pa.array(uids),
        "url": pa.array([f"https://{d}/pictures/{u[:12]}.jpg" for d, u in zip(domains, uids, strict=True)]),
        "caption": pa.array(captions),
        "source": pa.array(SOURCES[rng.integers(0, 3, n)]),
        "domain": pa.array(domains),
        "clip_similarity": _floats(rng, 0.2, 0.4, n),
        "aesthetic": _floats(rng, 2, 8, n),
        "punsafe": _floats(rng, 0, 1, n),
        "pwatermark": _floats(rng, 0, 1, n),
    }
    return pa.table(columns, schema.SAMPLES)


def _downloads(unit: str, uids: np.ndarray, came: np.ndarray, rng: np.random.Generator) -> pa.Table:
    n = len(uids)
    sizes = rng.integers(3_000, 30_000, n)
    hashes = rng.bytes(8 * n).hex()
    values = {
        "sha256": uids + uids,
        "phash": np.array([hashes[i : i + 16] for i in range(0, len(hashes), 16)], object),
        "format": np.full(n, "jpeg", object),
        "num_bytes": sizes * 3,
        "width": rng.integers(100, 2_000, n).astype(np.int32),
        "height": rng.integers(100, 2_000, n).astype(np.int32),
        "sharpness": rng.uniform(0, 500, n).astype(np.float32),
        "entropy": rng.uniform(0, 8, n).astype(np.float32),
        "shard": np.full(n, f"raw/{unit}-{'0' * 16}.tar", object),
        "offset": np.cumsum(sizes + 1_024),
        "size": sizes,
        "stored_sha256": uids[::-1] + uids,
    }
    columns = {name: pa.nulls(n, schema.DOWNLOADS.field(name).type) for name in schema.DOWNLOADS.names}
    columns |= {name: pa.array(value, mask=~came) for name, value in values.items()}
    columns |= {"uid": pa.array(uids), "status": pa.array(np.where(came, "ok", "http_404").astype(object))}
    columns["fetch_round"] = pa.array(np.zeros(n, np.int32))
    return pa.table(columns, schema.DOWNLOADS)


def _scores(n: int, rng: np.random.Generator) -> dict[str, dict[str, pa.Array]]:
    """Columns of the filters of recipes coyo-700m and datacomp-1b, and of laion-2b-en, by filter."""
    lengths, words = rng.integers(1, 200, n), rng.integers(1, 40, n)
    return {
        "aspect_ratio": {"aspect_ratio": _floats(rng, 1, 4, n)},
        "unsafe_score": {"unsafe_score": _floats(rng, 0, 1, n)},
        "language": {
            "language": pa.array(LANGUAGES[rng.integers(0, 4, n) * (rng.random(n) < 0.5)]),
            "language_probability": _floats(rng, 0.5, 1, n),
        },
        "caption_length": {
            "caption_characters": pa.array(lengths.astype(np.int32)),
            "caption_words": pa.array(words.astype(np.int32)),
        },
        "clip_score": {"clip_score": _floats(rng, 0.2, 0.4, n), "clip_score_l14": _floats(rng, 0.1, 0.4, n)},
    }
