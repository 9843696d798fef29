"""A root that can be packed, and what a packing wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.recipe.config import PackConfig, Recipe
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, VERSION, SmallRoot

NUM_ROWS = 90


def build_packable(root: Root) -> SmallRoot:
    """Downloads and a selection of the wide pictures; `top_caption` is there for two thirds of them."""
    made = small_root.build(root, NUM_ROWS)
    for unit in UNITS:
        uids = sorted(u for u in made.images if made.units[u] == unit)
        texts = [f"better words {u[:4]}" if k % 3 else None for k, u in enumerate(uids)]
        table = pa.table({"uid": uids, "top_caption": pa.array(texts, pa.string())})
        root.publish_parquet(f"scores_recaption/{unit}.parquet", table)
    small_root.select(made)
    return made


def create_root(url: str | Path, **options: Any) -> Root:
    root = Root(url, **options)
    root.create()
    return root


def pack_recipe(**options: Any) -> Recipe:
    """Shards of ten samples, unless `options` of [pack] say otherwise."""
    return Recipe(pack=PackConfig(**({"num_samples_per_shard": 10} | options)))


def read_index(root: Root) -> list[dict[str, Any]]:
    current = root.current("train_index")
    assert current is not None
    return [row for rel in current["files"] for row in root.read_parquet(rel).to_pylist()]


def list_tars(root: Root) -> list[str]:
    current = root.current("train")
    assert current is not None
    return [rel for rel in current["files"] if rel.endswith(".tar")]


def list_kept(root: Root) -> set[str]:
    current = root.current("selection")
    assert current is not None
    rows = [row for rel in current["files"] for row in root.read_parquet(rel).to_pylist()]
    return {row["uid"] for row in rows if row["kept"]}


def hash_packing(root: Root) -> dict[str, str]:
    """sha256 of every file that a packing wrote."""
    folder = Path(root.path)
    files = [p for table in ("train", "train_index") for p in (folder / table).rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


def select_narrower(made: SmallRoot) -> None:
    """A second selection: fewer wide pictures, and three that the first had refused."""
    ok = sorted(uid for uid, row in made.downloads.items() if row["status"] == "ok")
    first = list_kept(made.root)
    added = [uid for uid in ok if uid not in first][:3]
    kept = {uid for uid in first if made.downloads[uid]["width"] >= 60} | set(added)
    files = []
    for unit in UNITS:
        uids = sorted(uid for uid, name in made.units.items() if name == unit)
        reasons = [
            None if u in kept else "narrow" if u in ok else f"download:{made.downloads[u]['status']}" for u in uids
        ]
        table = pa.table({"uid": uids, "kept": [u in kept for u in uids], "reason": pa.array(reasons, pa.string())})
        files.append(f"selection/{VERSION[::-1]}/{unit}.parquet")
        made.root.publish_parquet(files[-1], table)
    made.root.publish_current("selection", VERSION[::-1], files, {"rules": {}}, {})
